//! No more sessions and no more threads inside the module than it can bear, and nobody fails for it.

use std::{
    thread,
    time::{Duration, Instant},
};

use p11_client::ErrorCode;
use p11_fault_module::{
    Function::{C_CloseSession, C_GenerateKeyPair, C_OpenSession, C_Sign},
    Rule,
    cryptoki_sys::{CKR_FUNCTION_NOT_SUPPORTED, CKR_SESSION_COUNT},
    on, token,
};
use p11_tests::{
    client::{ClientKey, P256, refused},
    fixture::{Fixture, KEY},
    keys::KeyKind,
    server::Server,
};

/// Programs at work at the same time.
const PROGRAMS: usize = 8;

/// Has each program open the key and sign 20 times.
fn all_sign(server: &Server) {
    thread::scope(|scope| {
        for _ in 0..PROGRAMS {
            scope.spawn(|| signs(&server.client().open(KEY).unwrap()));
        }
    });
}

fn signs(key: &ClientKey) {
    for _ in 0..20 {
        key.sign().unwrap();
    }
}

#[test]
fn no_more_sessions_are_opened_than_a_token_has() {
    for limit in [1, 2, 3] {
        let fixture = Fixture::new(KeyKind::P256);
        let limited = token("device").session_limit(limit);
        fixture.faults.set([limited, on(C_Sign).delays(2)]);
        let server = fixture.start();
        all_sign(&server);
        let calls = fixture.faults.counts();
        let open = calls.of(C_OpenSession) - calls.of(C_CloseSession);
        assert_eq!(open, u64::from(limit), "{calls}");
        // One that was refused was not to be closed.
        assert_eq!(calls.of(C_CloseSession), 0, "{calls}");
    }
}

#[test]
fn a_few_sessions_are_opened_on_a_token_without_a_limit() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([on(C_Sign).delays(5)]);
    let server = fixture.start();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| all_sign(&server));
        }
    });
    let calls = fixture.faults.counts();
    assert!((5..=9).contains(&calls.of(C_OpenSession)), "{calls}");
    assert!(calls.max_concurrent() > 3, "they sign at the same time");
}

#[test]
fn clients_wait_where_a_token_has_fewer_sessions_than_it_says() {
    let (fixture, server, _) = Fixture::steady();
    let full = on(C_OpenSession).returns(CKR_SESSION_COUNT);
    fixture.faults.set([full, on(C_Sign).delays(2)]);
    let before = fixture.faults.counts();
    all_sign(&server);
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.of(C_Sign), 20 * PROGRAMS as u64, "{calls}");
    assert!(calls.of(C_OpenSession) < 10, "once is enough: {calls}");
}

#[test]
fn a_token_with_one_session_that_says_it_has_more_serves_all() {
    let fixture = Fixture::new(KeyKind::P256);
    // The first rule holds, the token says the second.
    let lies = [1, 16].map(|limit| token("device").session_limit(limit));
    fixture.faults.set(lies);
    let server = fixture.start();
    let client = server.client();
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let key = server.client().open(KEY).unwrap();
                for _ in 0..200 {
                    key.sign().unwrap();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..100 {
                    refused(
                        client.open("pkcs11:token=device;object=none"),
                        ErrorCode::KeyNotFound,
                    );
                }
            });
        }
    });
    // Whoever stands still does so for 28 s.
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn an_idle_session_of_a_signer_makes_room_for_a_slow_request() {
    let (fixture, server) = Fixture::started();
    fixture.faults.set([on(C_Sign).delays(20)]);
    all_sign(&server);
    // The session of slow requests is closed after a failure, and another program has its place.
    let fails = on(C_GenerateKeyPair)
        .next(1)
        .returns(CKR_FUNCTION_NOT_SUPPORTED);
    let full = on(C_OpenSession).next(1).returns(CKR_SESSION_COUNT);
    fixture.faults.set([fails, full]);
    let client = server.client();
    refused(
        client.create_key("pkcs11:token=device", P256, "new", None),
        ErrorCode::NotSupported,
    );
    client.list_keys("pkcs11:token=device").unwrap();
    all_sign(&server);
}

#[test]
fn sessions_that_other_programs_have_are_waited_for() {
    let fixture = Fixture::new(KeyKind::P256);
    let taken = on(C_OpenSession).next(3).returns(CKR_SESSION_COUNT);
    fixture.faults.set([taken]);
    let server = fixture.start();
    server.client().open(KEY).unwrap().sign().unwrap();
    assert_eq!(fixture.faults.counts().injected(), 3);
}

#[test]
fn a_module_that_cannot_lock_is_called_by_one_thread_at_a_time() {
    for (rules, at_once) in [
        (vec![Rule::CantLock], 1..=1),
        (vec![Rule::WantsNull], 1..=1),
        (vec![], 2..=9),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture
            .faults
            .set(rules.into_iter().chain([on(C_Sign).delays(5)]));
        let server = fixture.start();
        all_sign(&server);
        let most = fixture.faults.counts().max_concurrent();
        assert!(at_once.contains(&most), "{most} threads in the module");
    }
}
