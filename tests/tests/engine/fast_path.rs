//! In the steady state a signature costs two calls of the module, whatever else there is.

use p11_fault_module::{
    Faults,
    Function::{C_Login, C_Sign, C_SignInit},
    Rule,
};
use p11_tests::{
    keys::KeyKind,
    stage::{Caller, KEY, Opened, Stage},
};

const SIGNATURES: u64 = 100;

/// Has the keys sign in turns; nothing but the two calls of each signature may happen.
fn two_calls_each(faults: &Faults, keys: &[Opened]) {
    for key in keys {
        key.sign().unwrap();
    }
    let before = faults.counts();
    for key in keys.iter().cycle().take(SIGNATURES as usize) {
        key.sign().unwrap();
    }
    let calls = faults.counts().since(&before);
    assert_eq!(calls.of(C_SignInit), SIGNATURES, "{calls}");
    assert_eq!(calls.of(C_Sign), SIGNATURES, "{calls}");
    assert_eq!(calls.total(), 2 * SIGNATURES, "{calls}");
}

fn two_calls_among(objects: usize) {
    let stage = Stage::new(KeyKind::P256);
    stage.crowd(objects);
    let server = stage.start();
    let key = Caller::of(&server).open(KEY).unwrap();
    two_calls_each(&stage.faults, &[key]);
}

#[test]
fn two_calls_among_10_objects() {
    two_calls_among(10);
}

#[test]
fn two_calls_among_400_objects() {
    two_calls_among(400);
}

#[test]
fn two_calls_on_each_of_two_tokens() {
    let stage = Stage::new(KeyKind::P256);
    stage.add_token("second");
    let server = stage.start();
    let caller = Caller::of(&server);
    let keys = [KEY, "pkcs11:token=second;object=key"].map(|uri| caller.open(uri).unwrap());
    two_calls_each(&stage.faults, &keys);
}

#[test]
fn two_calls_for_programs_that_come_and_go() {
    let stage = Stage::new(KeyKind::P256);
    let server = stage.start();
    let key = Caller::of(&server).open(KEY).unwrap();
    key.sign().unwrap();
    let before = stage.faults.counts();
    // What the server has found for one program it knows for the next.
    for _ in 0..10 {
        Caller::of(&server).open(KEY).unwrap().sign().unwrap();
    }
    let calls = stage.faults.counts().since(&before);
    assert_eq!(calls.total(), 2 * 10, "{calls}");
}

#[test]
fn a_key_that_wants_a_login_for_each_signature_costs_that_login_and_no_more() {
    let stage = Stage::new(KeyKind::P256);
    stage.faults.set([Rule::always_authenticate("key")]);
    let server = stage.start();
    let key = Caller::of(&server).open(KEY).unwrap();
    key.sign().unwrap();
    let before = stage.faults.counts();
    for _ in 0..SIGNATURES {
        key.sign().unwrap();
    }
    let calls = stage.faults.counts().since(&before);
    assert_eq!(calls.of(C_Login), SIGNATURES, "{calls}");
    assert_eq!(calls.of(C_SignInit), SIGNATURES, "{calls}");
    assert_eq!(calls.of(C_Sign), SIGNATURES, "{calls}");
    assert_eq!(calls.total(), 3 * SIGNATURES, "{calls}");
}
