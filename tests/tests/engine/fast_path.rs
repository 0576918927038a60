//! In the steady state a signature costs two calls of the module, whatever else there is.

use p11_fault_module::{
    Faults,
    Function::{C_Login, C_Sign, C_SignInit},
    Rule,
};
use p11_tests::{
    client::ClientKey,
    fixture::{Fixture, KEY, assert_no_search_after_idleness},
    keys::KeyKind,
};

const SIGNATURES: u64 = 100;

/// Has the keys sign in turns; nothing but the two calls of each signature may happen.
fn two_calls_each(faults: &Faults, keys: &[ClientKey]) {
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

#[test]
fn a_signature_costs_two_calls_however_many_objects_there_are() {
    for objects in [10, 400] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.fill(objects);
        let server = fixture.start();
        let key = server.client().open(KEY).unwrap();
        two_calls_each(&fixture.faults, &[key]);
    }
}

#[test]
fn a_signature_costs_two_calls_on_each_of_two_tokens() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = fixture.start();
    let client = server.client();
    let keys = [KEY, "pkcs11:token=second;object=key"].map(|uri| client.open(uri).unwrap());
    two_calls_each(&fixture.faults, &keys);
}

#[test]
fn a_signature_costs_two_calls_for_new_clients_too() {
    let (fixture, server, _) = Fixture::steady();
    let before = fixture.faults.counts();
    // What the server has found for one program it knows for the next.
    for _ in 0..10 {
        server.client().open(KEY).unwrap().sign().unwrap();
    }
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.total(), 2 * 10, "{calls}");
}

#[test]
fn a_key_that_wants_a_login_for_each_signature_costs_that_login_and_no_more() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([Rule::AlwaysAuthenticate("key".into())]);
    let server = fixture.start();
    let key = server.client().open(KEY).unwrap();
    key.sign().unwrap();
    let before = fixture.faults.counts();
    for _ in 0..SIGNATURES {
        key.sign().unwrap();
    }
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.of(C_Login), SIGNATURES, "{calls}");
    assert_eq!(calls.of(C_SignInit), SIGNATURES, "{calls}");
    assert_eq!(calls.of(C_Sign), SIGNATURES, "{calls}");
    assert_eq!(calls.total(), 3 * SIGNATURES, "{calls}");
}

#[test]
fn after_a_time_of_idleness_a_signature_costs_two_calls_more_and_no_search() {
    for kind in [KeyKind::P256, KeyKind::Rsa2048] {
        let fixture = Fixture::new(kind);
        fixture.fill(400);
        let server = fixture.start_quick();
        let key = server.client().open(KEY).unwrap();
        key.sign().unwrap();
        assert_no_search_after_idleness(&fixture.faults, &key);
    }
}
