//! A wrong PIN costs one try, and no number of requests locks a token.

use std::thread;

use p11_client::{ErrorCode, message::ChangePin};
use p11_fault_module::{
    Function::{C_GetSlotList, C_Initialize, C_Login},
    Pin, Rule,
    cryptoki_sys::*,
    on, token,
};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    text::assert_contains,
    tools::run,
    wait::wait_until,
};

const WRONG: &str = "wrong-pin-1";
const WRONG_TOO: &str = "wrong-pin-2";

fn tries(tries: u32) -> Rule {
    token("device").pin_tries(Pin::User, tries)
}

/// A fixture whose token takes this many wrong PINs in a row, the last of which locks it.
fn fixture(wrong: u32) -> Fixture {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([tries(wrong)]);
    fixture
}

/// How often `C_Login` is called while something is done.
fn logins(fixture: &Fixture, job: impl FnOnce()) -> u64 {
    let before = fixture.faults.count(C_Login);
    job();
    fixture.faults.count(C_Login) - before
}

#[test]
fn a_hundred_requests_with_a_wrong_pin_cost_one_login() {
    let fixture = fixture(3);
    let server = fixture.server().pin(WRONG).start();
    let client = server.client();
    let used = logins(&fixture, || {
        let first = refused(client.open(KEY), ErrorCode::PinIncorrect);
        let serial = &fixture.token.serial;
        assert_contains(
            &first.message,
            ["token=device", serial.as_str(), "CKR_PIN_INCORRECT"],
        );
        assert_contains(
            &first.message,
            [
                "try was used up",
                "TEDGE_DEVICE_CRYPTOKI_PIN",
                "SIGHUP",
                "reload",
            ],
        );
        for _ in 1..100 {
            let later = refused(client.open(KEY), ErrorCode::PinIncorrect);
            assert_contains(
                &later.message,
                ["token=device", "has refused the server's PIN", "SIGHUP"],
            );
        }
    });
    assert_eq!(used, 1);
    assert!(fixture.tries_pin(Pin::User, PIN), "the token is not locked");
}

#[test]
fn wrong_pins_that_come_at_once_cost_one_login() {
    let fixture = fixture(10);
    let server = fixture.server().pin(WRONG).start();
    let used = logins(&fixture, || {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| refused(server.client().open(KEY), ErrorCode::PinIncorrect));
            }
        });
    });
    assert_eq!(used, 1);
}

#[test]
fn after_two_refused_pins_none_is_sent_until_the_operator_says_so() {
    let fixture = fixture(10);
    let server = fixture.server().start();
    server.secrets().add(WRONG);
    let client = server.client();
    let with = |pin| client.with_pin(pin).open(KEY);
    let used = logins(&fixture, || {
        refused(with(WRONG), ErrorCode::PinIncorrect);
        refused(with(WRONG_TOO), ErrorCode::PinIncorrect);
    });
    assert_eq!(used, 2);
    let used = logins(&fixture, || {
        let failure = refused(with("wrong-pin-3"), ErrorCode::PinGuarded);
        assert_contains(
            &failure.message,
            ["token=device", "has refused PINs", "SIGHUP"],
        );
        // Not even the right one: nobody knows that it is.
        refused(with(PIN), ErrorCode::PinGuarded);
        refused(client.open(KEY), ErrorCode::PinGuarded);
    });
    assert_eq!(used, 0);
    server.sighup();
    // These were three misses, after which PINs of this user are not looked at for 1 s.
    wait_until(|| with(PIN).is_ok());
    with(PIN).unwrap().sign().unwrap();
}

#[test]
fn a_login_that_succeeds_gives_back_the_tries() {
    let fixture = fixture(10);
    let server = fixture.server().start();
    let client = server.client();
    let with = |pin| client.with_pin(pin).open(KEY);
    refused(with(WRONG), ErrorCode::PinIncorrect);
    let key = with(PIN).unwrap();
    key.sign().unwrap();
    // The token is pulled and put back, and with it goes the login.
    fixture.faults.set([tries(10), token("device").hidden()]);
    refused(key.sign(), ErrorCode::TokenNotFound);
    fixture.faults.set([tries(10)]);
    let used = logins(&fixture, || {
        refused(with(WRONG), ErrorCode::PinIncorrect);
        refused(with(WRONG), ErrorCode::PinIncorrect);
        with(PIN).unwrap().sign().unwrap();
    });
    assert_eq!(used, 2);
}

#[test]
fn a_pin_that_was_refused_gets_in_where_another_program_sets_it_later() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().start();
    let client = server.client();
    let with = |pin| client.with_pin(pin).open(KEY);
    refused(with(WRONG), ErrorCode::PinIncorrect);
    with(PIN).unwrap().sign().unwrap();
    let other = fixture.server().pin(PIN).start();
    other.client().change_pin(ChangePin::new(WRONG)).unwrap();
    drop(other);
    // SoftHSM sees it when it is initialised again.
    fixture.faults.set([on(C_GetSlotList)
        .next(1)
        .returns(CKR_CRYPTOKI_NOT_INITIALIZED)]);
    client.list_tokens();
    with(WRONG).unwrap().sign().unwrap();
}

#[test]
fn the_pin_that_was_accepted_last_goes_before_a_wrong_one_of_the_server() {
    let fixture = fixture(10);
    let server = fixture.server().pin(WRONG).start();
    let client = server.client();
    let with_pin = client.with_pin(PIN);
    let open = || with_pin.open(KEY).unwrap().sign().unwrap();
    assert_eq!(logins(&fixture, open), 2);
    fixture
        .faults
        .set([tries(10), token("device").logged_out()]);
    assert_eq!(logins(&fixture, open), 1);
}

#[test]
fn sighup_lets_a_refused_pin_be_tried_once_more() {
    let fixture = fixture(10);
    let server = fixture.server().pin(WRONG).start();
    let client = server.client();
    let ask = || drop(refused(client.open(KEY), ErrorCode::PinIncorrect));
    assert_eq!(logins(&fixture, ask), 1);
    assert_eq!(logins(&fixture, ask), 0);
    server.sighup();
    assert_eq!(logins(&fixture, ask), 1);
    assert_eq!(logins(&fixture, ask), 0);
}

#[test]
fn at_the_final_try_no_pin_is_sent_until_somebody_has_logged_in_by_hand() {
    let fixture = fixture(3);
    assert!(!fixture.tries_pin(Pin::User, WRONG) && !fixture.tries_pin(Pin::User, WRONG));
    let server = fixture.start();
    let client = server.client();
    let used = logins(&fixture, || {
        let failure = refused(client.open(KEY), ErrorCode::PinGuarded);
        assert_contains(
            &failure.message,
            ["token=device", "one PIN try left", "by hand"],
        );
        server.sighup();
        refused(client.open(KEY), ErrorCode::PinGuarded);
    });
    assert_eq!(used, 0);
    assert!(fixture.tries_pin(Pin::User, PIN));
    client.open(KEY).unwrap().sign().unwrap();
}

#[test]
fn a_locked_token_is_shown_no_pin() {
    let fixture = fixture(2);
    assert!(!fixture.tries_pin(Pin::User, WRONG) && !fixture.tries_pin(Pin::User, WRONG));
    let server = fixture.start();
    let client = server.client();
    let used = logins(&fixture, || {
        let failure = refused(client.open(KEY), ErrorCode::PinLocked);
        assert_contains(
            &failure.message,
            ["token=device", "locked", "security officer"],
        );
    });
    assert_eq!(used, 0);
}

#[test]
fn a_server_that_is_restarted_again_and_again_with_a_wrong_pin_locks_nothing() {
    let fixture = fixture(3);
    let used = logins(&fixture, || {
        for _ in 0..5 {
            let server = fixture.server().pin(WRONG).start();
            let client = server.client();
            assert!(client.open(KEY).is_err() && client.open(KEY).is_err());
        }
    });
    assert_eq!(used, 2, "the third would be the final try");
    assert!(fixture.tries_pin(Pin::User, PIN));
}

#[test]
fn while_the_token_is_logged_in_another_pin_is_refused_without_a_call() {
    let fixture = fixture(10);
    let server = fixture.start();
    let client = server.client();
    let key = client.open(KEY).unwrap();
    key.sign().unwrap();
    let before = fixture.faults.counts();
    refused(client.with_pin(WRONG).open(KEY), ErrorCode::PinIncorrect);
    let in_uri = format!("{KEY}?pin-value={WRONG}");
    let failure = refused(client.open(&in_uri), ErrorCode::PinIncorrect);
    assert_contains(&failure.message, ["token=device", "logged in with another"]);
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.total(), 0, "{calls}");
    client.with_pin(PIN).open(KEY).unwrap().sign().unwrap();
    key.sign().unwrap();
}

#[test]
fn a_login_that_fails_for_another_reason_is_not_repeated_in_the_request_nor_held_against_the_pin() {
    for (code, name) in [
        (CKR_DEVICE_ERROR, "CKR_DEVICE_ERROR"),
        (CKR_FUNCTION_FAILED, "CKR_FUNCTION_FAILED"),
        (CKR_GENERAL_ERROR, "CKR_GENERAL_ERROR"),
        (CKR_SESSION_HANDLE_INVALID, "CKR_SESSION_HANDLE_INVALID"),
        (CKR_CRYPTOKI_NOT_INITIALIZED, "CKR_CRYPTOKI_NOT_INITIALIZED"),
        (CKR_PIN_EXPIRED, "CKR_PIN_EXPIRED"),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.faults.set([on(C_Login).next(1).returns(code)]);
        let server = fixture.start_quick();
        let client = server.client();
        let used = logins(&fixture, || {
            let failure = refused(client.open(KEY), ErrorCode::Module);
            assert_eq!(failure.function.as_deref(), Some("C_Login"), "{name}");
            assert_eq!(failure.ckr.as_deref(), Some(name));
        });
        assert_eq!(used, 1, "{name}");
        wait_until(|| client.open(KEY).is_ok());
        client.open(KEY).unwrap().sign().unwrap();
    }
}

#[test]
fn a_reload_of_the_module_lets_no_refused_pin_be_tried_again() {
    let fixture = fixture(10);
    let server = fixture.server().pin(WRONG).start();
    let client = server.client();
    refused(client.open(KEY), ErrorCode::PinIncorrect);
    let reloads = fixture.faults.count(C_Initialize);
    fixture.faults.set([
        tries(10),
        on(C_GetSlotList)
            .next(1)
            .returns(CKR_CRYPTOKI_NOT_INITIALIZED),
    ]);
    let used = logins(&fixture, || {
        refused(client.open(KEY), ErrorCode::PinIncorrect);
    });
    assert_eq!(fixture.faults.count(C_Initialize), reloads + 1);
    assert_eq!(used, 0);
}

#[test]
fn a_token_that_was_replaced_is_tried_anew() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().start();
    let client = server.client();
    for pin in [WRONG, WRONG_TOO] {
        refused(client.with_pin(pin).open(KEY), ErrorCode::PinIncorrect);
    }
    let client = client.with_pin(PIN);
    refused(client.open(KEY), ErrorCode::PinGuarded);
    let serial = &fixture.token.serial;
    run(fixture
        .hsm
        .command("softhsm2-util")
        .args(["--delete-token", "--serial", serial]));
    let token = fixture.hsm.init_token("device", PIN, SO_PIN);
    fixture.hsm.generate(&token, &fixture.key.spec);
    // SoftHSM shows it after a reload.
    fixture.faults.set([on(C_GetSlotList)
        .next(1)
        .returns(CKR_CRYPTOKI_NOT_INITIALIZED)]);
    // A new PIN of a client goes to no token in the request that had the module reloaded.
    refused(client.open(KEY), ErrorCode::Busy);
    client.open(KEY).unwrap().sign().unwrap();
}

#[test]
fn the_logins_of_signatures_are_guarded_too() {
    let fixture = Fixture::new(KeyKind::P256);
    let always = Rule::AlwaysAuthenticate("key".into());
    fixture.faults.set([always.clone()]);
    let server = fixture.start();
    let key = server.client().open(KEY).unwrap();
    key.sign().unwrap();
    // The PIN was changed elsewhere.
    fixture.faults.set([
        always,
        on(C_Login).delays(100),
        on(C_Login).returns(CKR_PIN_INCORRECT),
    ]);
    let used = logins(&fixture, || {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| refused(key.sign(), ErrorCode::PinIncorrect));
            }
        });
        refused(key.sign(), ErrorCode::PinIncorrect);
    });
    assert_eq!(used, 1);
}

#[test]
fn what_is_typed_wrongly_at_a_pin_pad_counts_as_well() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([token("device").pin_pad(WRONG)]);
    let server = fixture.server().start();
    let client = server.client();
    let used = logins(&fixture, || {
        for _ in 0..2 {
            let failure = refused(client.open(KEY), ErrorCode::PinIncorrect);
            assert_contains(&failure.message, ["token=device", "PIN pad"]);
        }
        for _ in 0..10 {
            refused(client.open(KEY), ErrorCode::PinGuarded);
        }
    });
    assert_eq!(used, 2);
    fixture.faults.set([token("device").pin_pad(PIN)]);
    server.sighup();
    client.open(KEY).unwrap().sign().unwrap();
}
