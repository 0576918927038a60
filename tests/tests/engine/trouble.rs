//! Trouble stays with its token, its key and its user, and costs a few calls.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use p11_client::ErrorCode;
use p11_fault_module::{Function::*, Rule, cryptoki_sys::*, on, token};
use p11_tests::{
    client::{ClientKey, P256, refused},
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    server::Server,
    wait::{StopOnDrop, wait_until},
};

/// What a signature that waits for nobody takes at most on a machine that others use, too.
const SLOW: Duration = Duration::from_secs(3);

const OTHER: &str = "pkcs11:token=other;object=key";

/// The longest that one of these signatures takes, made one after the other while `job` runs.
fn slowest_while(key: &ClientKey, job: impl FnOnce()) -> Duration {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let signs = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !over.load(Relaxed) {
                let start = Instant::now();
                key.sign().unwrap();
                slowest = slowest.max(start.elapsed());
                thread::sleep(Duration::from_millis(5));
            }
            slowest
        });
        let stops = StopOnDrop(&over);
        job();
        drop(stops);
        signs.join().unwrap()
    })
}

#[test]
fn a_session_that_does_not_close_holds_up_no_other_token() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("other");
    let server = fixture.start();
    let client = server.client();
    let key = client.open(KEY).unwrap();
    key.sign().unwrap();
    fixture.faults.set([
        on(C_Sign).at("device").next(1).returns(CKR_DEVICE_ERROR),
        on(C_CloseSession).at("device").hangs_forever(),
    ]);
    let _hung = thread::spawn(move || key.sign());
    wait_until(|| fixture.faults.counts().injected() > 1);
    let start = Instant::now();
    client.open(OTHER).unwrap().sign().unwrap();
    assert!(!client.list_keys(OTHER).unwrap().is_empty());
    assert!(start.elapsed() < SLOW, "{:?}", start.elapsed());
}

/// In some 10 s, with pauses of 1, 2, 4 s.
const MOST_LOGINS: u64 = 5;

/// A key on the token `device` that fails, and what must not notice it: the key beside it, and one on the
/// token `other`.
struct Failing {
    fixture: Fixture,
    server: Server,
    bad: ClientKey,
    good: ClientKey,
    other: ClientKey,
}

fn failing() -> Failing {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "bad", 2);
    fixture.add_token("other");
    let server = fixture.start();
    let open = |uri| {
        let key = server.client().open(uri).unwrap();
        key.sign().unwrap();
        key
    };
    Failing {
        bad: open("pkcs11:token=device;object=bad"),
        good: open(KEY),
        other: open(OTHER),
        fixture,
        server,
    }
}

#[test]
fn a_key_that_always_fails_disturbs_no_other_key_and_no_other_token() {
    thread::scope(|scope| {
        for code in [
            CKR_DEVICE_ERROR,
            CKR_GENERAL_ERROR,
            CKR_FUNCTION_FAILED,
            CKR_USER_NOT_LOGGED_IN,
            CKR_SESSION_HANDLE_INVALID,
            CKR_DEVICE_REMOVED,
            CKR_KEY_HANDLE_INVALID,
        ] {
            scope.spawn(move || {
                let on = failing();
                let fails = Rule::FailsToSign("bad".into(), code);
                on.fixture.faults.set([fails]);
                let before = on.fixture.faults.counts();
                let slowest = slowest_while(&on.good, || {
                    let slowest = slowest_while(&on.other, || {
                        for _ in 0..80 {
                            on.bad.sign().unwrap_err();
                            thread::sleep(Duration::from_millis(100));
                        }
                    });
                    assert!(slowest < SLOW, "{code:#x}: {slowest:?}");
                });
                assert!(slowest < SLOW, "{code:#x}: {slowest:?}");
                let calls = on.fixture.faults.counts().since(&before);
                assert_eq!(calls.of(C_Finalize), 0, "{code:#x}: {calls}");
                assert!(calls.of(C_Login) <= MOST_LOGINS, "{code:#x}: {calls}");
                assert!(on.server.client().status().available);
                on.fixture.faults.clear();
                on.bad.sign().unwrap();
            });
        }
    });
}

#[test]
fn a_key_that_always_fails_alone_on_its_token_costs_a_few_logins() {
    for code in [CKR_DEVICE_ERROR, CKR_USER_NOT_LOGGED_IN] {
        let on = failing();
        let before = on.fixture.faults.counts();
        on.fixture
            .faults
            .set([Rule::FailsToSign("bad".into(), code)]);
        let slowest = slowest_while(&on.other, || {
            for _ in 0..80 {
                on.bad.sign().unwrap_err();
                thread::sleep(Duration::from_millis(100));
            }
        });
        let calls = on.fixture.faults.counts().since(&before);
        assert_eq!(calls.of(C_Finalize), 0, "{code:#x}: {calls}");
        assert!(calls.of(C_Login) <= MOST_LOGINS, "{code:#x}: {calls}");
        assert!(slowest < SLOW, "{code:#x}: {slowest:?}");
        on.fixture.faults.clear();
        on.bad.sign().unwrap();
    }
}

#[test]
fn a_key_that_failed_once_is_not_blamed_for_what_befalls_its_token_later() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start_quick();
    let client = server.client();
    let key = client.open(KEY).unwrap();
    key.sign().unwrap();
    let fails = on(C_Sign).next(2).returns(CKR_GENERAL_ERROR);
    let closed = || token("device").sessions_closed();

    // It has signed since, in a new life; then it is opened again.
    fixture.faults.set([fails.clone()]);
    key.sign().unwrap_err();
    key.sign().unwrap();
    client.open(KEY).unwrap();
    fixture.faults.set([closed()]);
    key.sign().unwrap();

    // Others have signed since, but that was long ago: 3 s for this server, 30 s for the real one.
    let other = fixture.add_key(KeyKind::P256, "other", 2);
    let others = client.open("pkcs11:token=device;object=other").unwrap();
    assert_eq!(others.told().spki.as_ref(), other.spki);
    fixture.faults.set([fails]);
    key.sign().unwrap_err();
    others.sign().unwrap();
    thread::sleep(Duration::from_millis(3100));
    fixture.faults.set([closed()]);
    key.sign().unwrap();
}

#[test]
fn a_client_that_asks_for_a_missing_key_logs_nobody_out() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("other");
    let server = fixture.start_quick();
    let client = server.client();
    let keys = [KEY, OTHER].map(|uri| client.open(uri).unwrap());
    keys.iter().for_each(|key| key.sign().unwrap());
    let before = fixture.faults.counts();
    let start = Instant::now();
    let slowest = slowest_while(&keys[1], || {
        while start.elapsed() < Duration::from_secs(9) {
            for uri in ["pkcs11:token=device;object=missing", "pkcs11:token=missing"] {
                let failure = client.open(uri).map(drop).unwrap_err();
                let is_due = matches!(
                    failure.code,
                    ErrorCode::KeyNotFound | ErrorCode::TokenNotFound
                );
                assert!(is_due, "{}: {failure}", failure.code);
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let calls = fixture.faults.counts().since(&before);
    // For the token, at most every 4 s by this server, 30 s by the real one.
    assert!((1..=3).contains(&calls.of(C_Finalize)), "{calls}");
    // Each logs in again after a reload, and not in between.
    assert!(calls.of(C_Login) <= 2 * calls.of(C_Finalize), "{calls}");
    assert!(slowest < SLOW, "{slowest:?}");
}

#[test]
fn a_sighup_with_a_new_pin_counts_while_a_login_with_the_old_one_is_made() {
    let fixture = Fixture::new(KeyKind::P256);
    let toml = |pin| format!("[device.cryptoki]\npin = \"{pin}\"\n");
    let (wrong, new) = ("wrong-sesame", "new-sesame");
    for (configured, then) in [(PIN, PIN), (PIN, wrong), (wrong, PIN), (PIN, new)] {
        let server = fixture.server().tedge_toml(&toml(configured)).start();
        for pin in [PIN, wrong, new] {
            server.secrets().add(pin);
        }
        let injected = fixture.faults.counts().injected();
        fixture
            .faults
            .set([on(C_Login).at("device").next(1).delays(3000)]);
        let client = server.client();
        let during = {
            let client = client.clone();
            thread::spawn(move || client.open(KEY).and_then(|key| key.sign()))
        };
        wait_until(|| fixture.faults.counts().injected() > injected);
        fs::write(server.folder().join("tedge.toml"), toml(then)).unwrap();
        if then == new {
            assert!(fixture.takes_so_pin("device", SO_PIN, new));
        }
        server.sighup();
        let _ = during.join().unwrap();
        let opened = client.open(KEY).and_then(|key| key.sign());
        match then == wrong {
            true => drop(refused(opened, ErrorCode::PinIncorrect)),
            false => opened.unwrap(),
        }
        fixture.faults.clear();
        // Whatever it was, another SIGHUP heals it.
        let right = if then == new { new } else { PIN };
        fs::write(server.folder().join("tedge.toml"), toml(right)).unwrap();
        server.sighup();
        client.open(KEY).unwrap().sign().unwrap();
    }
}

#[test]
fn a_request_that_waits_while_sighup_brings_another_pin_uses_that_one() {
    let fixture = Fixture::new(KeyKind::P256);
    let toml = |pin| format!("[device.cryptoki]\npin = \"{pin}\"\n");
    let server = fixture.server().tedge_toml(&toml("wrong-sesame")).start();
    for pin in [PIN, "wrong-sesame"] {
        server.secrets().add(pin);
    }
    let client = server.client();
    fixture
        .faults
        .set([on(C_Login).at("device").next(1).delays(3000)]);
    thread::scope(|scope| {
        let first = scope.spawn(|| client.open(KEY));
        wait_until(|| fixture.faults.counts().injected() > 0);
        let second = scope.spawn(|| client.open(KEY).and_then(|key| key.sign()));
        thread::sleep(Duration::from_millis(500));
        fs::write(server.folder().join("tedge.toml"), toml(PIN)).unwrap();
        server.sighup();
        refused(first.join().unwrap(), ErrorCode::PinIncorrect);
        second.join().unwrap().unwrap();
    });
    assert_eq!(fixture.faults.count(C_Login), 2);
}

#[test]
fn a_key_that_is_found_while_the_scope_is_narrowed_is_not_cached() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let toml = |uri| format!("[device.cryptoki]\nuri = \"{uri}\"\n");
    let server = fixture.server().pin(PIN);
    let server = server.tedge_toml(&toml("pkcs11:")).start();
    let client = server.client();
    let injected = fixture.faults.counts().injected();
    fixture
        .faults
        .set([on(C_FindObjectsInit).at("device").next(1).delays(2000)]);
    let during = {
        let client = client.clone();
        thread::spawn(move || client.open(KEY).map(drop))
    };
    wait_until(|| fixture.faults.counts().injected() > injected);
    fs::write(
        server.folder().join("tedge.toml"),
        toml("pkcs11:token=second"),
    )
    .unwrap();
    server.sighup();
    during.join().unwrap().unwrap();
    let key = client.open(KEY).unwrap();
    assert!(key.told().uri.contains("token=second"), "{:?}", key.told());
}

#[test]
fn signatures_wait_for_no_change_of_their_token() {
    const CHANGE: u32 = 5000;
    for function in [C_GenerateKeyPair, C_CreateObject, C_DestroyObject] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.add_key(KeyKind::P256, "old", 2);
        let server = fixture.start();
        let client = server.client();
        let key = client.open(KEY).unwrap();
        key.sign().unwrap();
        fixture.faults.set([on(function).next(1).delays(CHANGE)]);
        let mut took = Duration::ZERO;
        let slowest = slowest_while(&key, || {
            let start = Instant::now();
            match function {
                C_GenerateKeyPair => drop(
                    client
                        .create_key("pkcs11:token=device", P256, "new", None)
                        .unwrap(),
                ),
                C_CreateObject => drop(
                    client
                        .import_certificate(KEY, &fixture.certificate())
                        .unwrap(),
                ),
                _ => drop(client.delete_key("pkcs11:token=device;object=old").unwrap()),
            }
            took = start.elapsed();
        });
        assert!(took >= Duration::from_millis(CHANGE.into()), "{took:?}");
        assert!(slowest < SLOW, "{function:?}: {slowest:?}");
    }
}
