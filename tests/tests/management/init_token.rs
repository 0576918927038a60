//! InitToken: a token becomes ready for use, and none that is in use is harmed.

use std::{sync::Barrier, thread, time::Duration};

use p11_client::{ErrorCode, Pin, UriText, message::InitToken};
use p11_fault_module::{
    Function::{C_InitPIN, C_InitToken, C_Initialize, C_SetPIN, C_Sign, C_SignInit},
    cryptoki_sys::*,
    every_token, on,
};
use p11_tests::{
    client::{P256, refused},
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    server::Server,
    text::assert_contains,
    wait::wait_until,
};

const NEW_PIN: &str = "305419";
const NEW_SO_PIN: &str = "902461";

fn some(pin: &str) -> Option<Pin> {
    Some(pin.into())
}

fn has_pins(fixture: &Fixture, label: &str, pin: &str, so_pin: &str) {
    assert!(fixture.takes_pin(label, pin));
    assert!(fixture.takes_so_pin(label, so_pin, pin));
}

/// A token of this label holds keys that sign.
fn is_ready(server: &Server, label: &str, pin: &str) {
    let uri = format!("pkcs11:token={label}");
    let client = server.client().with_pin(pin);
    let made = client.create_key(&uri, P256, "fresh", None).unwrap();
    let key = server.client().with_pin(pin).open(&made.uri).unwrap();
    key.sign().unwrap();
}

#[test]
fn the_free_slot_becomes_a_token_with_the_pins_of_the_request() {
    let (fixture, server) = Fixture::started();
    // Sessions are open on the other token.
    let key = server.client().open(KEY).unwrap();
    key.sign().unwrap();

    let client = server.client();
    server.secrets().add(NEW_PIN);
    server.secrets().add(NEW_SO_PIN);
    let ready = client
        .init_token(
            InitToken::new("new")
                .so_pin(some(NEW_SO_PIN))
                .pin(some(NEW_PIN)),
        )
        .unwrap();
    assert!(ready.created);
    let told = client.token("new");
    assert_eq!(told.uri, ready.uri);
    assert!(told.initialized && told.user_pin_set);

    is_ready(&server, "new", NEW_PIN);
    has_pins(&fixture, "new", NEW_PIN, NEW_SO_PIN);
    key.sign().unwrap();
    assert!(
        !client.token("").initialized,
        "SoftHSM offers the next slot"
    );
}

#[test]
fn pins_that_are_left_out_are_the_configured_one() {
    let (fixture, server) = Fixture::started();
    server.client().init_token(InitToken::new("new")).unwrap();
    has_pins(&fixture, "new", PIN, PIN);
    is_ready(&server, "new", PIN);
}

#[test]
fn the_security_officers_pin_defaults_to_the_users() {
    let (fixture, server) = Fixture::started();
    let (pin, uri) = (some(NEW_PIN), None);
    let request = InitToken::new("new").uri(uri).pin(pin);
    server.client().init_token(request).unwrap();
    has_pins(&fixture, "new", NEW_PIN, NEW_PIN);
    // The server has learnt the PIN of this token.
    server.client().open(KEY).unwrap().sign().unwrap();
    is_ready(&server, "new", NEW_PIN);
}

#[test]
fn a_usable_token_of_that_label_stays_as_it_is() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    let key = server.client().open(KEY).unwrap();
    for pin in [None, some(NEW_PIN)] {
        let ready = client
            .init_token(InitToken::new("device").pin(pin))
            .unwrap();
        assert!(!ready.created);
        assert_eq!(ready.uri, client.token("device").uri);
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
    let (fixture, server) = Fixture::started();
    let client = server.client();
    // SoftHSM's free slot is hidden.
    fixture.faults.set([p11_fault_module::token("").hidden()]);
    let ready = client.init_token(InitToken::new("other")).unwrap();
    assert!(!ready.created);
    assert_eq!(ready.uri, client.token("device").uri);
    assert_eq!(fixture.faults.count(C_InitToken), 0);
}

#[test]
fn several_tokens_are_never_chosen_from() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = fixture.start();
    let client = server.client();

    // Two that are in use, and none to be made: SoftHSM's free slot is hidden.
    fixture.faults.set([p11_fault_module::token("").hidden()]);
    let told = refused(
        client.init_token(InitToken::new("other")),
        ErrorCode::AmbiguousToken,
    );
    assert_contains(
        &told.message,
        ["token=device", "token=second", "no slot that is free"],
    );

    // Two that could be made ready.
    fixture
        .faults
        .set([p11_fault_module::token("second").uninitialized()]);
    let told = refused(
        client.init_token(InitToken::new("other")),
        ErrorCode::AmbiguousToken,
    );
    let free = client
        .list_tokens()
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
    fixture.add_token("second");
    let server = fixture.start();
    let client = server.client();
    let uri = Some(client.token("").uri.as_str().into());
    let ready = client.init_token(InitToken::new("new").uri(uri)).unwrap();
    assert!(ready.created);
    is_ready(&server, "new", PIN);
    let uri = Some("pkcs11:slot-id=4242".into());
    let told = refused(
        client.init_token(InitToken::new("newer").uri(uri)),
        ErrorCode::TokenNotFound,
    );
    assert!(told.message.contains("slot-id=4242"), "{told}");
}

#[test]
fn a_token_is_made_however_long_ago_the_module_was_initialised() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start_quick();
    let client = server.client();
    client.open(KEY).unwrap();
    // From now on the tokens of other programs are looked for first, by a reload.
    thread::sleep(Duration::from_millis(4100));
    let request = InitToken::new("new").pin(Pin::from(PIN));
    assert!(client.init_token(request).unwrap().created);
    assert_eq!(fixture.faults.count(C_Initialize), 2);
    // Its own token is no reason for another one.
    let request = InitToken::new("newer").pin(Pin::from(PIN));
    assert!(client.init_token(request).unwrap().created);
    assert_eq!(fixture.faults.count(C_Initialize), 2);
    is_ready(&server, "new", PIN);
}

#[test]
fn a_token_of_the_label_is_the_answer_though_the_uri_names_a_free_slot() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    let first = client.init_token(InitToken::new("twin")).unwrap();
    for _ in 0..2 {
        let free = client.token("").uri;
        let again = InitToken::new("twin").uri(UriText::from(free.as_str()));
        let again = client.init_token(again).unwrap();
        assert_eq!((again.created, &again.uri), (false, &first.uri));
    }
    assert_eq!(fixture.faults.count(C_InitToken), 1);
    assert_eq!(client.token("twin").uri, first.uri);
}

#[test]
fn a_slot_that_is_free_no_more_is_not_found() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    let free = format!("pkcs11:slot-id={}", client.token("device").slot);
    let stale = InitToken::new("new").uri(UriText::from(free.as_str()));
    let told = refused(client.init_token(stale), ErrorCode::TokenNotFound);
    assert_contains(&told.message, [&free, "which slot is free now"]);
    assert_eq!(fixture.faults.count(C_InitToken), 0);
    // Not even for the token that is in it: until SoftHSM is initialised again it has the number of the free slot.
    let same = InitToken::new("device").uri(UriText::from(free.as_str()));
    refused(client.init_token(same), ErrorCode::TokenNotFound);
}

#[test]
fn an_initialisation_that_was_cut_short_is_brought_to_its_end() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .faults
        .set([on(C_InitPIN).next(1).returns(CKR_DEVICE_ERROR)]);
    let request = || InitToken::new("new").pin(some(NEW_PIN));
    {
        let server = fixture.start();
        let told = refused(server.client().init_token(request()), ErrorCode::Module);
        assert_eq!(told.function.as_deref(), Some("C_InitPIN"));
    }
    fixture.faults.clear();
    // Perhaps the machine went down.
    let server = fixture.start();
    let client = server.client();
    assert!(!client.token("new").user_pin_set);
    let ready = client.init_token(request()).unwrap();
    assert!(ready.created);
    assert!(client.token("new").user_pin_set);
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
    let client = server.client();
    refused(client.init_token(InitToken::new("new")), ErrorCode::Module);
    fixture.faults.set([every_token().asks_no_login()]);
    let ready = client.init_token(InitToken::new("new")).unwrap();
    assert!(!ready.created);
    assert_eq!(fixture.faults.count(C_InitPIN), 1);
}

#[test]
fn a_label_that_no_token_can_have_is_refused() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    let too_long = "x".repeat(33);
    // A token would show another one than these, or none.
    for label in ["", &too_long, "device ", " ", "device\0", "a\nb"] {
        let told = refused(
            client.init_token(InitToken::new(label)),
            ErrorCode::BadRequest,
        );
        assert!(told.message.contains("1 to 32 bytes"), "{told}");
    }
    assert!(
        client
            .init_token(InitToken::new("ü".repeat(16)))
            .unwrap()
            .created
    );
    assert_eq!(fixture.faults.count(C_InitToken), 1);
}

#[test]
fn a_pin_that_the_token_refuses_is_an_error_and_the_next_one_is_taken() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    let (pin, so_pin) = (some("12"), some(NEW_SO_PIN));
    let told = refused(
        client.init_token(InitToken::new("new").so_pin(so_pin.clone()).pin(pin)),
        ErrorCode::BadRequest,
    );
    assert!(told.message.contains("4 to 255 characters"), "{told}");
    let pin = some(NEW_PIN);
    client
        .init_token(InitToken::new("new").so_pin(so_pin).pin(pin))
        .unwrap();
    has_pins(&fixture, "new", NEW_PIN, NEW_SO_PIN);
}

#[test]
fn of_clients_that_want_the_same_token_one_makes_it() {
    let (fixture, server) = Fixture::started();
    fixture.faults.set([on(C_InitToken).delays(100)]);
    let together = Barrier::new(4);
    let init = || {
        let client = server.client();
        client.list_tokens();
        together.wait();
        client.init_token(InitToken::new("new")).unwrap()
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

#[test]
fn a_token_that_another_program_has_just_made_gets_no_twin_while_the_module_cannot_be_reloaded() {
    let lost = on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED);
    let (fixture, server, key) = Fixture::steady();
    let client = server.client();
    // From now on the next reload has to wait.
    fixture.faults.set([lost]);
    key.sign().unwrap();
    fixture.add_token("late");
    for other in ["late", "later"] {
        let told = refused(client.init_token(InitToken::new(other)), ErrorCode::Busy);
        assert_contains(&told.message, ["another program", " s,"]);
    }
    let made = client.create_key("pkcs11:", P256, "new", None);
    refused(made, ErrorCode::Busy);
    wait_until(|| {
        client
            .init_token(InitToken::new("late"))
            .is_ok_and(|ready| !ready.created)
    });

    let (fixture, server, _key) = Fixture::steady_quick();
    let client = server.client();
    fixture.faults.set([on(C_Sign).next(1).delays(3500)]);
    thread::scope(|scope| {
        scope.spawn(|| server.client().open(KEY).unwrap().sign());
        wait_until(|| fixture.faults.count(C_Sign) == 2);
        fixture.add_token("late");
        refused(client.init_token(InitToken::new("late")), ErrorCode::Busy);
    });
    wait_until(|| {
        client
            .init_token(InitToken::new("late"))
            .is_ok_and(|ready| !ready.created)
    });
    assert_eq!(fixture.faults.count(C_InitToken), 0);
}

#[test]
fn tokens_that_other_programs_make_one_after_the_other_are_each_known_at_once() {
    let (fixture, server, _key) = Fixture::steady();
    let client = server.client();
    for label in ["one", "two", "three", "four"] {
        fixture.add_token(label);
        assert_eq!(client.token(label).label, label);
        let ready = client.init_token(InitToken::new(label)).unwrap();
        assert!(!ready.created);
    }
    assert_eq!(fixture.faults.count(C_InitToken), 0);
}

#[test]
fn words_of_the_uri_that_are_none_are_named() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    for word in ["label=new", "object-type=private", "slot=0", "Token=device"] {
        let uri = Some(UriText::from(format!("pkcs11:{word}").as_str()));
        let told = client.init_token(InitToken::new("new").uri(uri));
        let told = refused(told, ErrorCode::TokenNotFound);
        let name = word.split('=').next().unwrap();
        assert_contains(&told.message, [format!("`{name}=…`")]);
    }
    assert_eq!(fixture.faults.count(C_InitToken), 0);
}
