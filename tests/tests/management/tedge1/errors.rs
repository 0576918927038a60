//! The phrases in errors, by which released clients and scripts tell them apart.

use std::thread;

use p11_fault_module::{
    Function::{C_Login, C_Sign},
    on,
};
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    text::assert_contains,
    wait::wait_until,
};

use super::{NONE, Tedge1Client, choose, message, sign, some, text, varint};

const NO_TOKEN: &str = "Didn't find a slot to use";
const NO_TOKEN_EITHER: &str = "No token matching the given URI was found";
const NO_KEY: &str = "Failed to find a key";
const NO_SIGNING_KEY: &str = "Failed to find a signing key";
/// What thin-edge's own tests look for.
const NO_TOKEN_TO_SIGN: &str = "Failed to find a signing key: Didn't find a slot to use";
const WRONG_PIN: &str = "The specified PIN is incorrect";
const MANY_TOKENS: &str = "Found multiple initialized tokens";

fn create(uri: &str, pin: &[u8]) -> Vec<u8> {
    let kind = [&[1][..], &varint(256)].concat();
    message(10, &[&text(uri), &kind, &text("made"), NONE, pin])
}

#[test]
fn each_kind_of_failure_has_its_phrases() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = fixture.start();
    let old = Tedge1Client::of(&server);
    let none = "pkcs11:token=none";
    let no_key = "pkcs11:token=device;object=none";
    let hidden = "pkcs11:object=none";
    let any = "pkcs11:";
    let pin = text("305419");
    for (request, phrases) in [
        (choose(&[], none), &[NO_TOKEN_TO_SIGN][..]),
        (sign(b"m", none), &[NO_TOKEN_TO_SIGN]),
        (message(6, &[&some(none)]), &[NO_TOKEN_TO_SIGN]),
        (sign(b"m", hidden), &[NO_KEY, MANY_TOKENS]),
        (choose(&[], no_key), &[NO_KEY, NO_SIGNING_KEY]),
        (sign(b"m", no_key), &[NO_KEY, NO_SIGNING_KEY]),
        (message(6, &[&some(no_key)]), &[NO_KEY]),
        (create(none, NONE), &[NO_TOKEN, NO_TOKEN_EITHER]),
        (
            message(14, &[&text("new"), NONE, NONE, &some(none)]),
            &[NO_TOKEN, NO_TOKEN_EITHER],
        ),
        (
            message(18, &[&some(none), &pin, NONE, NONE, &[0]]),
            &[NO_TOKEN, NO_TOKEN_EITHER],
        ),
        (
            message(20, &[&text("pkcs11:token=none;object=key"), NONE]),
            &[NO_TOKEN, NO_TOKEN_EITHER],
        ),
        (
            message(22, &[&some(none), NONE]),
            &[NO_TOKEN, NO_TOKEN_EITHER],
        ),
        (create(any, NONE), &[MANY_TOKENS]),
        (message(18, &[NONE, &pin, NONE, NONE, &[0]]), &[MANY_TOKENS]),
        (
            message(20, &[&text("pkcs11:object=key"), NONE]),
            &[MANY_TOKENS],
        ),
        (message(22, &[NONE, NONE]), &[MANY_TOKENS]),
        (
            message(2, &[&text("m"), &some(KEY), &some("000001")]),
            &[WRONG_PIN],
        ),
        (create("pkcs11:token=second", &some("000002")), &[WRONG_PIN]),
    ] {
        let told = old.refused(&request);
        let told = told
            .strip_prefix("PKCS #11 service failed: ")
            .unwrap_or_else(|| panic!("{told}"));
        for phrase in phrases {
            assert!(told.contains(phrase), "no {phrase:?} in: {told}");
        }
    }
}

#[test]
fn what_is_no_request_was_not_understood() {
    let (_fixture, server) = Fixture::started();
    let old = Tedge1Client::of(&server);
    let cut = sign(b"m", KEY);
    for request in [
        &[0][..],
        &[0, 24],
        &[0, 9],
        &[0, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0, 6, 2],
        // A length of four billion.
        &[0, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, b'm'],
        &cut[..cut.len() - 1],
    ] {
        let told = old.refused(request);
        assert!(
            told.starts_with("Failed to parse the received frame"),
            "{told}"
        );
    }
    // And the next one is served.
    assert_eq!(old.ask(&[0, 8])[..2], [0, 9]);
}

#[test]
fn policy_and_audit_apply() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).args(["--sign-only"]).start();
    let old = Tedge1Client::of(&server);
    let told = old.refused(&message(20, &[&text(KEY), NONE]));
    assert!(told.contains("delete-key is not allowed"), "{told}");
    let line = server.wait_for_log("operation=DeleteKey");
    assert_contains(&line, ["outcome=NotAllowed", "object=key"]);
    old.ask(&sign(b"m", KEY));
    let line = server.wait_for_log("operation=Sign");
    assert_contains(&line, ["audit", "uid=", "pid=", "identity=", "outcome=ok"]);
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let (fixture, server) = Fixture::started();
    let old = Tedge1Client::of(&server);
    for _ in 0..20 {
        let told = old.refused(&message(2, &[&text("m"), &some(KEY), &some("000001")]));
        assert!(told.contains(WRONG_PIN), "{told}");
        old.refused(&create("pkcs11:", &some("000001")));
    }
    assert_eq!(fixture.faults.count(C_Login), 1);
}

#[test]
fn a_client_that_finds_all_connections_busy_is_told_so() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture
        .server()
        .pin(PIN)
        .args(["--max-connections", "1"])
        .start();
    let key = server.client().open(KEY).unwrap();
    fixture.faults.set([on(C_Sign).hangs()]);
    thread::scope(|scope| {
        let before = fixture.faults.count(C_Sign);
        let busy = scope.spawn(|| key.sign());
        wait_until(|| fixture.faults.count(C_Sign) > before);
        let told = Tedge1Client::of(&server).refused(&sign(b"m", KEY));
        fixture.faults.clear();
        let told = told.strip_prefix("PKCS #11 service failed: ").unwrap();
        assert!(told.contains("try again"), "{told}");
        busy.join().unwrap().unwrap();
    });
}
