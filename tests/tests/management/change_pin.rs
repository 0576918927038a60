//! ChangePin: the token takes another PIN, and the running server with it.

use p11_client::{ErrorCode, Pin, UriText, message::ChangePin};
use p11_fault_module::{
    self as fault,
    Function::{C_GetSlotList, C_InitPIN, C_Login, C_SetPIN},
    cryptoki_sys::*,
    every_token, on,
};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    server::Server,
    text::assert_contains,
    wait::wait_until,
};

const NEW: &str = "305419";
const WRONG: &str = "000001";

fn some(pin: &str) -> Option<Pin> {
    Some(pin.into())
}

fn reset(so_pin: &str, new: &str) -> ChangePin {
    ChangePin::new(new).so_pin(some(so_pin)).reset(true)
}

/// A server whose log may show none of the PINs.
fn start(fixture: &Fixture) -> Server {
    let server = fixture.start();
    server.secrets().add(NEW);
    server.secrets().add(WRONG);
    server
}

/// The token takes the new PIN alone, everybody goes on, and no login fails for it.
#[test]
fn clients_go_on_with_the_new_pin_however_it_was_changed() {
    let by_uri = format!("pkcs11:token=device?pin-value={PIN}");
    for change in [
        ChangePin::new(NEW),
        ChangePin::new(NEW).old_pin(some(PIN)),
        ChangePin::new(NEW).uri(UriText::from(by_uri)),
        reset(SO_PIN, NEW),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        let server = start(&fixture);
        let client = server.client();
        // Read-only sessions are open and logged in.
        let key = client.open(KEY).unwrap();
        let brings_the_old_one = client.with_pin(PIN).open(KEY).unwrap();
        key.sign().unwrap();

        let changed = client.change_pin(change).unwrap();
        assert_eq!(changed.uri, client.token("device").uri);
        assert!(fixture.takes_pin("device", NEW) && !fixture.takes_pin("device", PIN));

        let before = fixture.faults.count(C_Login);
        key.sign().unwrap();
        // Where the login is lost, one with the new PIN takes its place.
        fixture.faults.set([fault::token("device").logged_out()]);
        key.sign().unwrap();
        fixture
            .faults
            .set([fault::token("device").sessions_closed()]);
        key.sign().unwrap();
        refused(brings_the_old_one.sign(), ErrorCode::PinIncorrect);
        client.with_pin(NEW).open(KEY).unwrap().sign().unwrap();
        assert_eq!(fixture.faults.count(C_Login), before + 2);
        let log = server.log();
        assert!(!log.contains("CKR_PIN_INCORRECT"), "{log}");
    }
}

#[test]
fn the_old_pin_is_not_tried_any_more() {
    for change in [ChangePin::new(NEW), ChangePin::new(NEW).old_pin(some(PIN))] {
        let fixture = Fixture::new(KeyKind::P256);
        let server = start(&fixture);
        // Nobody has logged in before.
        server.client().change_pin(change).unwrap();
        let client = server.client();
        refused(client.with_pin(PIN).open(KEY), ErrorCode::PinIncorrect);
        assert!(!server.log().contains("CKR_PIN_INCORRECT"));
        client.open(KEY).unwrap().sign().unwrap();
    }
}

#[test]
fn a_pin_may_be_changed_back() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let client = server.client();
    for (so_pin, new) in [
        (None, NEW),
        (None, PIN),
        (some(SO_PIN), NEW),
        (some(SO_PIN), PIN),
    ] {
        let reset = so_pin.is_some();
        client
            .change_pin(ChangePin::new(new).so_pin(so_pin).reset(reset))
            .unwrap();
        server
            .client()
            .with_pin(new)
            .open(KEY)
            .unwrap()
            .sign()
            .unwrap();
    }
}

#[test]
fn reply_and_log_name_the_source_that_still_holds_the_old_pin() {
    let fixture = Fixture::new(KeyKind::P256);
    let by_uri = format!("pkcs11:token=device?pin-value={PIN}");
    for (server, source) in [
        (fixture.server().pin(PIN), "TEDGE_DEVICE_CRYPTOKI_PIN"),
        (
            fixture.server().uri(&by_uri),
            "pin-value of the server's URI",
        ),
    ] {
        // One after the other: SoftHSM does not see what other processes make of a PIN.
        let server = server.start();
        server.secrets().add(NEW);
        let client = server.client();
        let stale = client
            .change_pin(ChangePin::new(NEW))
            .unwrap()
            .stale
            .unwrap();
        assert!(stale.starts_with(source), "{stale}");
        let logged = server.wait_for_log("changed the PIN of the token");
        assert_contains(&logged, ["WARN", stale.as_str()]);
        // Back to what is configured, nothing is stale.
        let old_pin = some(NEW);
        let back = client
            .change_pin(ChangePin::new(PIN).old_pin(old_pin))
            .unwrap();
        assert_eq!(back.stale, None);
    }
}

#[test]
fn a_source_is_compared_with_the_new_pin_alone_and_the_token_is_named() {
    let fixture = Fixture::new(KeyKind::P256);
    let (second, _) = fixture.add_token("second");
    let server = start(&fixture);
    let client = server.client();
    // The first change leaves the source stale, and the second one as well.
    for new in [NEW, "another-pin"] {
        let uri = Some("pkcs11:token=device".into());
        let changed = client.change_pin(ChangePin::new(new).uri(uri)).unwrap();
        assert_contains(
            changed.stale.unwrap(),
            [
                "TEDGE_DEVICE_CRYPTOKI_PIN",
                "token=device",
                "if it is meant for this token",
            ],
        );
    }
    // Of another token, the advice is for that one.
    let uri = Some(second.uri().as_str().into());
    let changed = client.change_pin(reset(SO_PIN, NEW).uri(uri)).unwrap();
    assert_contains(changed.stale.unwrap(), ["token=second"]);
}

#[test]
fn each_source_that_holds_another_pin_is_named() {
    let fixture = Fixture::new(KeyKind::P256);
    let toml = |pin| format!("[device.cryptoki]\n\npin = \"{pin}\"\n");
    let server = fixture.server().pin(PIN).tedge_toml(&toml(WRONG)).start();
    for secret in [NEW, WRONG] {
        server.secrets().add(secret);
    }
    let client = server.client();
    let change = |new| client.change_pin(ChangePin::new(new)).unwrap().stale;
    let both = change(NEW).unwrap();
    assert_contains(
        both,
        ["TEDGE_DEVICE_CRYPTOKI_PIN and ", "tedge.toml line 3"],
    );
    let file = change(PIN).unwrap();
    assert!(!file.contains("TEDGE_DEVICE_CRYPTOKI_PIN"), "{file}");
    assert_contains(file, ["tedge.toml line 3 holds"]);
}

#[test]
fn a_new_pin_that_is_refused_gives_way_to_the_configured_one() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let client = server.client();
    client.change_pin(ChangePin::new(NEW)).unwrap();
    client.open(KEY).unwrap().sign().unwrap();
    // Another server changes it back, which SoftHSM sees when it is initialised again.
    let other = fixture.server().pin(NEW).start();
    other.client().change_pin(ChangePin::new(PIN)).unwrap();
    drop(other);
    let reload = on(C_GetSlotList).next(1);
    fixture
        .faults
        .set([reload.returns(CKR_CRYPTOKI_NOT_INITIALIZED)]);
    // A key that is opened by another URI is looked for.
    let by_id = "pkcs11:token=device;id=%01";
    let told = refused(client.open(by_id), ErrorCode::PinIncorrect);
    assert_contains(told.message, ["which ChangePin has set"]);
    client.open(KEY).unwrap().sign().unwrap();
}

#[test]
fn what_a_reset_sets_is_the_servers_only_where_the_old_one_was() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(WRONG).start();
    server.secrets().add(NEW);
    let client = server.client();
    client.change_pin(reset(SO_PIN, NEW)).unwrap();
    refused(client.open(KEY), ErrorCode::PinIncorrect);
    client.with_pin(NEW).open(KEY).unwrap().sign().unwrap();
    refused(client.open(KEY), ErrorCode::PinIncorrect);
}

#[test]
fn the_new_pin_holds_until_another_is_configured() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    server.client().change_pin(ChangePin::new(NEW)).unwrap();
    server.sighup();
    server.client().open(KEY).unwrap().sign().unwrap();
    assert!(!server.log().contains("CKR_PIN_INCORRECT"));
}

#[test]
fn a_wrong_old_pin_is_not_tried_where_the_servers_opens_the_token() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let client = server.client();
    for _ in 0..5 {
        let old_pin = some(WRONG);
        let told = refused(
            client.change_pin(ChangePin::new(NEW).old_pin(old_pin)),
            ErrorCode::PinIncorrect,
        );
        assert!(
            told.message.starts_with("The specified PIN is incorrect"),
            "{told}"
        );
    }
    // The server's PIN opens the token, so it is compared.
    assert_eq!(fixture.faults.count(C_SetPIN), 0);
    server.client().open(KEY).unwrap().sign().unwrap();
    client.change_pin(ChangePin::new(NEW)).unwrap();
}

#[test]
fn while_the_token_is_logged_in_a_wrong_old_pin_is_not_tried_at_all() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let key = server.client().open(KEY).unwrap();
    let old_pin = some(WRONG);
    let told = refused(
        server
            .client()
            .change_pin(ChangePin::new(NEW).old_pin(old_pin)),
        ErrorCode::PinIncorrect,
    );
    assert_contains(&told.message, ["logged in with another one"]);
    assert_eq!(fixture.faults.count(C_SetPIN), 0);
    key.sign().unwrap();
}

#[test]
fn no_pin_is_sent_at_the_final_try_nor_to_a_locked_token() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let client = server.client();
    let tries = |pin, tries| fault::token("device").pin_tries(pin, tries);
    for (user_tries, code) in [(1, ErrorCode::PinGuarded), (0, ErrorCode::PinLocked)] {
        fixture.faults.set([tries(fault::Pin::User, user_tries)]);
        refused(client.change_pin(ChangePin::new(NEW)), code);
    }
    for (so_tries, code) in [(1, ErrorCode::PinGuarded), (0, ErrorCode::PinLocked)] {
        fixture.faults.set([tries(fault::Pin::So, so_tries)]);
        refused(client.change_pin(reset(SO_PIN, NEW)), code);
    }
    assert_eq!(fixture.faults.count(C_SetPIN), 0);
    assert_eq!(fixture.faults.count(C_Login), 0);
}

#[test]
fn the_security_officer_unlocks_a_pin() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let three = fault::token("device").pin_tries(fault::Pin::User, 3);
    fixture.faults.set([three]);
    for _ in 0..3 {
        assert!(!fixture.tries_pin(fault::Pin::User, "000001"));
    }
    let client = server.client();
    refused(client.open(KEY), ErrorCode::PinLocked);
    server.client().change_pin(reset(SO_PIN, NEW)).unwrap();
    client.open(KEY).unwrap().sign().unwrap();
}

#[test]
fn a_pin_is_changed_even_if_the_login_after_it_fails() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    // The server's login and the security officer's go before it.
    let third = on(C_Login).every(3).returns(CKR_FUNCTION_FAILED);
    fixture.faults.set([third]);
    server.client().change_pin(reset(SO_PIN, NEW)).unwrap();
    assert!(fixture.takes_pin("device", NEW));
    server.client().open(KEY).unwrap().sign().unwrap();
}

#[test]
fn a_refused_security_officer_leaves_everything_as_it_was() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let client = server.client();
    let key = server.client().open(KEY).unwrap();
    key.sign().unwrap();
    for _ in 0..5 {
        let told = refused(
            client.change_pin(reset(WRONG, NEW)),
            ErrorCode::PinIncorrect,
        );
        assert_contains(&told.message, ["The specified PIN is incorrect"]);
        key.sign().unwrap();
    }
    assert_eq!(fixture.faults.count(C_InitPIN), 0);
    assert_contains(server.log(), ["as the security officer's"]);
    // The user's, the officer's, and the user's again since the officer wanted no session to be open.
    assert_eq!(fixture.faults.count(C_Login), 3);
    refused(client.change_pin(reset(SO_PIN, NEW)), ErrorCode::PinGuarded);
    server.sighup();
    client.change_pin(reset(SO_PIN, NEW)).unwrap();
    key.sign().unwrap();
}

#[test]
fn a_module_that_fails_the_security_officer_is_recovered_from() {
    for fault in [
        on(C_Login).next(1).returns(CKR_FUNCTION_FAILED),
        on(C_Login).next(1).returns(CKR_SESSION_READ_ONLY_EXISTS),
        on(C_InitPIN).next(1).returns(CKR_DEVICE_ERROR),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        let server = fixture.start_quick();
        server.secrets().add(NEW);
        let client = server.client();
        let key = server.client().open(KEY).unwrap();
        fixture.faults.set([fault.clone()]);
        refused(client.change_pin(reset(SO_PIN, NEW)), ErrorCode::Module);
        key.sign().unwrap();
        assert!(fixture.takes_pin("device", PIN), "after {fault:?}");
        wait_until(|| client.change_pin(reset(SO_PIN, NEW)).is_ok());
        key.sign().unwrap();
    }
}

#[test]
fn a_new_pin_that_the_token_does_not_take_changes_nothing() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let client = server.client();
    let key = server.client().open(KEY).unwrap();
    for change in [ChangePin::new("12"), reset(SO_PIN, "12")] {
        let told = refused(client.change_pin(change), ErrorCode::BadRequest);
        assert!(told.message.contains("4 to 255 characters"), "{told}");
        key.sign().unwrap();
    }
    assert!(fixture.takes_pin("device", PIN));
}

#[test]
fn the_token_is_the_only_one_or_named() {
    let fixture = Fixture::new(KeyKind::P256);
    let (second, _) = fixture.add_token("second");
    let server = start(&fixture);
    let client = server.client();
    let told = refused(
        client.change_pin(ChangePin::new(NEW)),
        ErrorCode::AmbiguousToken,
    );
    assert_contains(&told.message, ["Found multiple initialized tokens"]);
    let uri = Some(second.uri().as_str().into());
    let changed = client.change_pin(ChangePin::new(NEW).uri(uri)).unwrap();
    assert!(changed.uri.contains("token=second"), "{changed:?}");
    assert!(fixture.takes_pin("second", NEW));
    // The other token keeps its PIN, here and there.
    assert!(fixture.takes_pin("device", PIN));
    for uri in [KEY, "pkcs11:token=second;object=key"] {
        server.client().open(uri).unwrap().sign().unwrap();
    }
}

#[test]
fn what_cannot_be_changed_is_told() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let client = server.client();
    let without_so_pin = ChangePin::new(NEW).reset(true);
    let told = refused(client.change_pin(without_so_pin), ErrorCode::BadRequest);
    assert!(told.message.contains("so_pin"), "{told}");

    fixture.faults.set([every_token().asks_no_login()]);
    for change in [ChangePin::new(NEW), reset(SO_PIN, NEW)] {
        let told = refused(client.change_pin(change), ErrorCode::NotSupported);
        assert!(told.message.contains("nothing to change"), "{told}");
    }
    fixture.faults.set([every_token().pin_pad(PIN)]);
    for change in [ChangePin::new(NEW), reset(SO_PIN, NEW)] {
        let told = refused(client.change_pin(change), ErrorCode::NotSupported);
        assert!(told.message.contains("typed at the token itself"), "{told}");
    }
    let calls = fixture.faults.counts();
    assert_eq!(calls.of(C_SetPIN) + calls.of(C_InitPIN), 0, "{calls}");
}
