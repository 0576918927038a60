//! Tokens are changed while programs sign with them, and no signature is lost for it.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use p11_client::message::ChangePin;
use p11_fault_module::{self as fault, Function::C_Sign, on};
use p11_tests::{
    keys::KeyKind,
    stage::{Caller, KEY, PIN, SO_PIN, Stage},
};

use crate::{
    admin::{Admin, P256, pin, token},
    certificates::certificate_for,
};

const NEW: &str = "305419";

/// How many programs sign meanwhile.
const SIGNERS: usize = 4;

/// Four programs sign without a pause while `job` changes things, and none of them fails. Answers how
/// many signatures were made meanwhile.
fn while_others_sign(stage: &Stage, job: impl FnOnce(&Admin)) -> usize {
    let server = stage.start();
    server.secrets().add(NEW);
    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sign = || {
        let key = Caller::of(&server).open(KEY).unwrap();
        while !over.load(Ordering::Relaxed) {
            key.sign().unwrap();
            made.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let over = End(&over);
        let signers = [(); SIGNERS].map(|()| scope.spawn(sign));
        while made.load(Ordering::Relaxed) < 20 * SIGNERS {
            assert!(!signers.iter().any(|signer| signer.is_finished()));
            thread::yield_now();
        }
        made.store(0, Ordering::Relaxed);
        job(&Admin::of(&server));
        drop(over);
    });
    made.into_inner()
}

/// Ends the signing when it is dropped, by a test that fails too.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn keys_and_certificates_come_and_go() {
    let stage = Stage::new(KeyKind::P256);
    let certificate = certificate_for(&stage);
    let made = while_others_sign(&stage, |admin| {
        for _ in 0..10 {
            let key = admin.create("pkcs11:", P256, "passing", None).unwrap();
            admin.import(KEY, &certificate).unwrap();
            admin.keys("pkcs11:").unwrap();
            assert_eq!(admin.delete(&key.uri).unwrap().len(), 2);
        }
    });
    assert!(made > 0, "nobody signed meanwhile");
}

#[test]
fn pins_are_changed_and_reset() {
    let stage = Stage::new(KeyKind::P256);
    let made = while_others_sign(&stage, |admin| {
        for new in [NEW, PIN].into_iter().cycle().take(6) {
            admin.change_pin(pin(new)).unwrap();
        }
        for new in [NEW, PIN].into_iter().cycle().take(6) {
            let so_pin = Some(SO_PIN.into());
            let reset = ChangePin {
                so_pin,
                reset: true,
                ..pin(new)
            };
            admin.change_pin(reset).unwrap();
        }
    });
    assert!(made > 0, "nobody signed meanwhile");
}

#[test]
fn tokens_are_made() {
    let stage = Stage::new(KeyKind::P256);
    let made = while_others_sign(&stage, |admin| {
        for label in ["one", "two", "three"] {
            assert!(admin.init(token(label)).unwrap().created);
        }
    });
    assert!(made > 0, "nobody signed meanwhile");
}

#[test]
fn a_change_waits_for_a_signature_that_is_being_made() {
    let stage = Stage::new(KeyKind::P256);
    let server = stage.start();
    server.secrets().add(NEW);
    let key = Caller::of(&server).open(KEY).unwrap();
    stage.faults.set([on(C_Sign).delays(500)]);
    thread::scope(|scope| {
        let before = stage.faults.count(C_Sign);
        let signature = scope.spawn(|| key.sign());
        while stage.faults.count(C_Sign) == before {
            thread::yield_now();
        }
        // The officer would close its session.
        let so_pin = Some(SO_PIN.into());
        let reset = ChangePin {
            so_pin,
            reset: true,
            ..pin(NEW)
        };
        Admin::of(&server).change_pin(reset).unwrap();
        signature.join().unwrap().unwrap();
    });
}

#[test]
fn a_token_with_two_sessions_in_all_can_be_changed_while_others_sign() {
    let stage = Stage::new(KeyKind::P256);
    stage.faults.set([fault::token("device").session_limit(2)]);
    while_others_sign(&stage, |admin| {
        let key = admin.create("pkcs11:", P256, "passing", None).unwrap();
        admin.delete(&key.uri).unwrap();
        admin.change_pin(pin(NEW)).unwrap();
        let so_pin = Some(SO_PIN.into());
        let reset = ChangePin {
            so_pin,
            reset: true,
            ..pin(PIN)
        };
        admin.change_pin(reset).unwrap();
    });
}
