//! Tokens are changed while programs sign with them, and no signature is lost for it.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use p11_client::{
    ErrorCode, Pin,
    message::{ChangePin, InitToken},
};
use p11_fault_module::{
    self as fault,
    Function::{C_FindObjectsInit, C_Login, C_OpenSession, C_Sign},
    cryptoki_sys::CKR_SESSION_COUNT,
    on,
};
use p11_tests::{
    client::{P256, TestClient, refused},
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    text::assert_contains,
    wait::StopOnDrop,
};

const NEW: &str = "305419";

/// How many programs sign meanwhile.
const SIGNERS: usize = 4;

/// Four programs sign without a pause while `job` changes things, and none of them fails. Answers how
/// many signatures were made meanwhile.
fn while_others_sign(fixture: &Fixture, job: impl FnOnce(&TestClient)) -> usize {
    let server = fixture.start();
    server.secrets().add(NEW);
    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sign = || {
        let key = server.client().open(KEY).unwrap();
        while !over.load(Ordering::Relaxed) {
            key.sign().unwrap();
            made.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let over = StopOnDrop(&over);
        let signers = [(); SIGNERS].map(|()| scope.spawn(sign));
        while made.load(Ordering::Relaxed) < 20 * SIGNERS {
            assert!(!signers.iter().any(|signer| signer.is_finished()));
            thread::yield_now();
        }
        made.store(0, Ordering::Relaxed);
        job(&server.client());
        drop(over);
    });
    made.into_inner()
}

/// A request for a new PIN by the security officer.
fn reset(new: &str) -> ChangePin {
    ChangePin::new(new).so_pin(Pin::from(SO_PIN)).reset(true)
}

#[test]
fn keys_and_certificates_change_while_clients_sign() {
    let fixture = Fixture::new(KeyKind::P256);
    let certificate = fixture.certificate();
    let made = while_others_sign(&fixture, |client| {
        for _ in 0..10 {
            let key = client.create_key("pkcs11:", P256, "passing", None).unwrap();
            client.import_certificate(KEY, &certificate).unwrap();
            client.list_keys("pkcs11:").unwrap();
            assert_eq!(client.delete_key(&key.uri).unwrap().len(), 2);
        }
    });
    assert!(made > 0, "nobody signed meanwhile");
}

#[test]
fn pins_change_while_clients_sign() {
    let fixture = Fixture::new(KeyKind::P256);
    let made = while_others_sign(&fixture, |client| {
        for new in [NEW, PIN].into_iter().cycle().take(6) {
            client.change_pin(ChangePin::new(new)).unwrap();
        }
        for new in [NEW, PIN].into_iter().cycle().take(6) {
            client.change_pin(reset(new)).unwrap();
        }
    });
    assert!(made > 0, "nobody signed meanwhile");
}

#[test]
fn tokens_are_made_while_clients_sign() {
    let fixture = Fixture::new(KeyKind::P256);
    let made = while_others_sign(&fixture, |client| {
        for label in ["one", "two", "three"] {
            assert!(client.init_token(InitToken::new(label)).unwrap().created);
        }
    });
    assert!(made > 0, "nobody signed meanwhile");
}

#[test]
fn a_change_waits_for_a_signature_that_is_being_made() {
    let (fixture, server) = Fixture::started();
    server.secrets().add(NEW);
    let key = server.client().open(KEY).unwrap();
    fixture.faults.set([on(C_Sign).delays(500)]);
    thread::scope(|scope| {
        let before = fixture.faults.count(C_Sign);
        let signature = scope.spawn(|| key.sign());
        while fixture.faults.count(C_Sign) == before {
            thread::yield_now();
        }
        // The officer would close its session.
        server.client().change_pin(reset(NEW)).unwrap();
        signature.join().unwrap().unwrap();
    });
}

#[test]
fn a_login_that_is_lost_meanwhile_is_made_again_before_the_change() {
    let (fixture, server) = Fixture::started();
    server.client().open(KEY).unwrap();
    fixture.faults.set([on(C_FindObjectsInit).hangs()]);
    let deleted = thread::scope(|scope| {
        let before = fixture.faults.count(C_FindObjectsInit);
        let deletion = scope.spawn(|| server.client().delete_key(KEY));
        while fixture.faults.count(C_FindObjectsInit) == before {
            thread::yield_now();
        }
        fixture.faults.set([fault::every_token().logged_out()]);
        deletion.join().unwrap().unwrap()
    });
    // Who is not logged in sees the public half alone.
    assert_eq!(deleted.len(), 2, "{deleted:?}");
}

#[test]
fn a_token_with_few_sessions_in_all_can_be_changed_while_others_sign() {
    for limit in [2, 1] {
        let fixture = Fixture::new(KeyKind::P256);
        let certificate = fixture.certificate();
        fixture
            .faults
            .set([fault::token("device").session_limit(limit)]);
        while_others_sign(&fixture, |client| {
            for new in [NEW, PIN] {
                let key = client.create_key("pkcs11:", P256, "passing", None).unwrap();
                client.import_certificate(KEY, &certificate).unwrap();
                assert_eq!(client.delete_key(&key.uri).unwrap().len(), 2);
                client.change_pin(ChangePin::new(new)).unwrap();
            }
            client.change_pin(reset(NEW)).unwrap();
        });
    }
}

#[test]
fn a_token_with_one_session_in_all_is_logged_in_after_a_change() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .faults
        .set([fault::token("device").session_limit(1)]);
    let server = fixture.start();
    server.secrets().add(NEW);
    let client = server.client();
    let key = server.client().open(KEY).unwrap();
    let logins = |job: &dyn Fn()| {
        let before = fixture.faults.count(C_Login);
        job();
        fixture.faults.count(C_Login) - before
    };
    let sign = || key.sign().unwrap();
    let create = |id| client.create_key("pkcs11:", P256, "other", Some(id));

    // The change is made in the session that keeps the login.
    assert_eq!(logins(&|| drop(create(&[2]).unwrap())), 0);
    assert_eq!(logins(&sign), 0);
    assert_eq!(
        logins(&|| drop(client.change_pin(ChangePin::new(NEW)).unwrap())),
        0
    );
    assert_eq!(logins(&sign), 0);

    // A change that fails closes the only session, and the next request knows.
    refused(create(&[2]), ErrorCode::AlreadyExists);
    assert_eq!(client.delete_key("pkcs11:object=other").unwrap().len(), 2);
    sign();

    // A PIN that cannot be the right one disturbs nobody.
    let wrong = ChangePin::new(PIN).old_pin(Pin::from("000001"));
    let refuse = || {
        drop(refused(
            client.change_pin(wrong.clone()),
            ErrorCode::PinIncorrect,
        ))
    };
    assert_eq!(logins(&refuse), 0);
    assert_eq!(logins(&sign), 0);
}

#[test]
fn a_change_for_which_no_session_is_left_says_what_to_do() {
    let (fixture, server) = Fixture::started();
    server.secrets().add(NEW);
    let client = server.client();
    let key = server.client().open(KEY).unwrap();
    let full = on(C_OpenSession).returns(CKR_SESSION_COUNT);
    fixture.faults.set([full]);
    // The session that keeps the login is enough for these.
    let made = client.create_key("pkcs11:", P256, "other", None).unwrap();
    client.delete_key(&made.uri).unwrap();
    client.change_pin(ChangePin::new(NEW)).unwrap();
    // The security officer wants it closed, and a new one.
    let told = refused(client.change_pin(reset(PIN)), ErrorCode::Busy);
    assert_contains(
        &told.message,
        ["CKR_SESSION_COUNT", "other programs that use it"],
    );
    fixture.faults.clear();
    key.sign().unwrap();
}
