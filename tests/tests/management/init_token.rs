//! InitToken: a token becomes ready for use, and none that is in use is harmed.

use std::{sync::Barrier, thread};

use p11_client::{ErrorCode, Pin, UriText};
use p11_fault_module::{
    Function::{C_InitPIN, C_InitToken, C_SetPIN},
    cryptoki_sys::*,
    every_token, on,
};
use p11_tests::{
    fixture::{Fixture, KEY, PIN, SO_PIN, TestClient, refused},
    keys::KeyKind,
    server::Server,
};

use crate::{
    manager::{Manager, P256, token},
    takes_pin,
};

const NEW_PIN: &str = "305419";
const NEW_SO_PIN: &str = "902461";

fn some(pin: &str) -> Option<Pin> {
    Some(pin.into())
}

fn has_pins(fixture: &Fixture, label: &str, pin: &str, so_pin: &str) {
    let (user, new) = (format!("--pin={pin}"), format!("--new-pin={pin}"));
    let so = format!("--so-pin={so_pin}");
    assert!(takes_pin(fixture, label, &["--list-objects", &user]));
    assert!(takes_pin(fixture, label, &["--init-pin", &so, &new]));
}

/// A token of this label holds keys that sign.
fn is_ready(server: &Server, label: &str, pin: &str) {
    let uri = format!("pkcs11:token={label}");
    let manager = Manager::of(server).with_pin(pin);
    let made = manager.create(&uri, P256, "fresh", None).unwrap();
    let key = TestClient::of(server)
        .open_with(&made.uri, Some(pin))
        .unwrap();
    key.sign().unwrap();
}

#[test]
fn the_free_slot_becomes_a_token_with_the_pins_of_the_request() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    // Sessions are open on the other token.
    let key = TestClient::of(&server).open(KEY).unwrap();
    key.sign().unwrap();

    let manager = Manager::of(&server);
    server.secrets().add(NEW_PIN);
    server.secrets().add(NEW_SO_PIN);
    let ready = manager
        .init(token("new").so_pin(some(NEW_SO_PIN)).pin(some(NEW_PIN)))
        .unwrap();
    assert!(ready.created);
    let told = manager.token("new");
    assert_eq!(told.uri, ready.uri);
    assert!(told.initialized && told.user_pin_set);

    is_ready(&server, "new", NEW_PIN);
    has_pins(&fixture, "new", NEW_PIN, NEW_SO_PIN);
    key.sign().unwrap();
    assert!(
        !manager.token("").initialized,
        "SoftHSM offers the next slot"
    );
}

#[test]
fn pins_that_are_left_out_are_the_configured_one() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    Manager::of(&server).init(token("new")).unwrap();
    has_pins(&fixture, "new", PIN, PIN);
    is_ready(&server, "new", PIN);
}

#[test]
fn the_security_officers_pin_defaults_to_the_users() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let (pin, uri) = (some(NEW_PIN), None);
    let request = token("new").uri(uri).pin(pin);
    Manager::of(&server).init(request).unwrap();
    has_pins(&fixture, "new", NEW_PIN, NEW_PIN);
    // The server has learnt the PIN of this token.
    TestClient::of(&server).open(KEY).unwrap().sign().unwrap();
    is_ready(&server, "new", NEW_PIN);
}

#[test]
fn a_usable_token_of_that_label_stays_as_it_is() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let manager = Manager::of(&server);
    let key = TestClient::of(&server).open(KEY).unwrap();
    for pin in [None, some(NEW_PIN)] {
        let ready = manager.init(token("device").pin(pin)).unwrap();
        assert!(!ready.created);
        assert_eq!(ready.uri, manager.token("device").uri);
    }
    let calls = fixture.faults.counts();
    for function in [C_InitToken, C_InitPIN, C_SetPIN] {
        assert_eq!(calls.of(function), 0, "{calls}");
    }
    key.sign().unwrap();
    has_pins(&fixture, "device", PIN, SO_PIN);
}

#[test]
fn where_no_slot_is_free_the_only_usable_token_is_the_answer() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let manager = Manager::of(&server);
    // SoftHSM always has a free slot, but not where the URI looks.
    let uri = Some(format!("pkcs11:slot-id={}", fixture.token.slot).into());
    let ready = manager.init(token("other").uri(uri)).unwrap();
    assert!(!ready.created);
    assert_eq!(ready.uri, manager.token("device").uri);
    assert_eq!(fixture.faults.count(C_InitToken), 0);
}

#[test]
fn several_tokens_are_never_chosen_from() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = fixture.start();
    let manager = Manager::of(&server);

    // Two that are in use, and none to be made: SoftHSM's free slot is hidden.
    fixture.faults.set([p11_fault_module::token("").hidden()]);
    let told = refused(manager.init(token("other")), ErrorCode::AmbiguousToken);
    for part in ["token=device", "token=second", "no slot that is free"] {
        assert!(told.message.contains(part), "no {part:?} in: {told}");
    }

    // Two that could be made ready.
    fixture
        .faults
        .set([p11_fault_module::token("second").uninitialized()]);
    let told = refused(manager.init(token("other")), ErrorCode::AmbiguousToken);
    let free = manager
        .tokens()
        .into_iter()
        .filter(|token| !token.initialized);
    let free: Vec<_> = free.map(|token| token.uri).collect();
    assert_eq!(free.len(), 2);
    for uri in free {
        assert!(told.message.contains(&uri), "no {uri} in: {told}");
    }
    assert_eq!(fixture.faults.count(C_InitToken), 0);
}

#[test]
fn the_uri_of_a_free_slot_names_it() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let manager = Manager::of(&server);
    fixture.add_token("second");
    let uri = Some(manager.token("").uri.as_str().into());
    let ready = manager.init(token("new").uri(uri)).unwrap();
    assert!(ready.created);
    is_ready(&server, "new", PIN);
    let uri = Some("pkcs11:slot-id=4242".into());
    let told = refused(
        manager.init(token("newer").uri(uri)),
        ErrorCode::TokenNotFound,
    );
    assert!(told.message.contains("slot-id=4242"), "{told}");
}

#[test]
fn another_token_of_the_same_label_elsewhere_is_not_touched() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let manager = Manager::of(&server);
    let so_pin = || some(SO_PIN);
    let first = token("twin").so_pin(so_pin());
    let first = manager.init(first).unwrap();
    let made = manager.create(&first.uri, P256, "made", None).unwrap();

    // The URI leads past the token that has this label.
    let second = token("twin")
        .uri(UriText::from(manager.token("").uri.as_str()))
        .so_pin(so_pin())
        .pin(some(NEW_PIN));
    let second = manager.init(second).unwrap();
    assert!(second.created);
    assert_ne!(second.uri, first.uri);
    let opens = |token: &str, pin| Manager::of(&server).with_pin(pin).keys(token);
    opens(&second.uri, NEW_PIN).unwrap();
    opens(&first.uri, PIN).unwrap();
    TestClient::of(&server)
        .open_with(&made.uri, Some(PIN))
        .unwrap()
        .sign()
        .unwrap();
}

#[test]
fn an_initialisation_that_was_cut_short_is_brought_to_its_end() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .faults
        .set([on(C_InitPIN).next(1).returns(CKR_DEVICE_ERROR)]);
    let request = || token("new").pin(some(NEW_PIN));
    {
        let server = fixture.start();
        let told = refused(Manager::of(&server).init(request()), ErrorCode::Module);
        assert_eq!(told.function.as_deref(), Some("C_InitPIN"));
    }
    fixture.faults.clear();
    // Perhaps the machine went down.
    let server = fixture.start();
    let manager = Manager::of(&server);
    assert!(!manager.token("new").user_pin_set);
    let ready = manager.init(request()).unwrap();
    assert!(ready.created);
    assert!(manager.token("new").user_pin_set);
    assert_eq!(fixture.faults.count(C_InitToken), 1);
    is_ready(&server, "new", NEW_PIN);
}

#[test]
fn a_token_that_wants_no_login_is_usable_without_a_pin() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .faults
        .set([on(C_InitPIN).next(1).returns(CKR_DEVICE_ERROR)]);
    let server = fixture.start();
    let manager = Manager::of(&server);
    refused(manager.init(token("new")), ErrorCode::Module);
    fixture.faults.set([every_token().asks_no_login()]);
    let ready = manager.init(token("new")).unwrap();
    assert!(!ready.created);
    assert_eq!(fixture.faults.count(C_InitPIN), 1);
}

#[test]
fn a_label_that_no_token_can_have_is_refused() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let manager = Manager::of(&server);
    for label in ["", &"x".repeat(33)] {
        let told = refused(manager.init(token(label)), ErrorCode::BadRequest);
        assert!(told.message.contains("1 to 32 bytes"), "{told}");
    }
    assert!(manager.init(token(&"ü".repeat(16))).unwrap().created);
    assert_eq!(fixture.faults.count(C_InitToken), 1);
}

#[test]
fn a_pin_that_the_token_does_not_take_is_told_and_the_next_one_is_taken() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let manager = Manager::of(&server);
    let (pin, so_pin) = (some("12"), some(NEW_SO_PIN));
    let told = refused(
        manager.init(token("new").so_pin(so_pin.clone()).pin(pin)),
        ErrorCode::BadRequest,
    );
    assert!(told.message.contains("4 to 255 characters"), "{told}");
    let pin = some(NEW_PIN);
    manager.init(token("new").so_pin(so_pin).pin(pin)).unwrap();
    has_pins(&fixture, "new", NEW_PIN, NEW_SO_PIN);
}

#[test]
fn of_many_who_want_the_same_token_one_makes_it() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    fixture.faults.set([on(C_InitToken).delays(100)]);
    let together = Barrier::new(4);
    let init = || {
        let manager = Manager::of(&server);
        manager.tokens();
        together.wait();
        manager.init(token("new")).unwrap()
    };
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(init)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(fixture.faults.count(C_InitToken), 1);
    assert_eq!(answers.iter().filter(|ready| ready.created).count(), 1);
    assert!(answers.iter().all(|ready| ready.uri == answers[0].uri));
    is_ready(&server, "new", PIN);
}
