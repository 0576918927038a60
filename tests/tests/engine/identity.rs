//! The key that was opened is the key that signs, or there is no signature.

use std::{thread, time::Duration};

use p11_client::{ErrorCode, message::Class};
use p11_fault_module::{
    Function::{C_FindObjectsInit, C_GetAttributeValue, C_Sign, C_SignInit},
    Rule,
    cryptoki_sys::{CKA_CLASS, CKA_EC_POINT, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKR_FUNCTION_FAILED},
    object,
};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY},
    keys::KeyKind,
};

#[test]
fn a_key_that_another_program_has_replaced_does_not_sign_for_the_old_one() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    let old = client.open(KEY).unwrap();
    old.sign().unwrap();

    delete_key(&fixture);
    let new_key = fixture.hsm.generate(&fixture.token, &fixture.key.spec);
    let before = fixture.faults.counts();
    for _ in 0..3 {
        let failure = refused(old.sign(), ErrorCode::KeyChanged);
        assert!(failure.message.contains("object=key"), "{failure}");
        let opened = old.told().identity.to_string();
        assert!(failure.message.contains(&opened), "{failure}");
        assert!(failure.message.contains("open the key again"), "{failure}");
    }
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.of(C_Sign), 0, "{calls}");

    let new = client.open(KEY).unwrap();
    assert_eq!(new.told().spki.as_ref(), new_key.spki);
    new.sign().unwrap();
    refused(old.sign(), ErrorCode::KeyChanged);
}

#[test]
fn a_key_that_is_gone_is_not_found_and_another_in_its_place_is_a_change() {
    let (fixture, server) = Fixture::started();
    let key = server.client().open(KEY).unwrap();
    delete_key(&fixture);
    refused(key.sign(), ErrorCode::KeyNotFound);
    // Of another kind even.
    fixture.add_key(KeyKind::Rsa2048, "key", 7);
    refused(key.sign(), ErrorCode::KeyChanged);
}

#[test]
fn a_key_that_cannot_be_read_at_this_moment_is_not_taken_for_another() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "other", 2);
    let server = fixture.start();
    let key = server.client().open("pkcs11:token=device").unwrap();
    assert_eq!(key.told().spki.as_ref(), fixture.key.spki);
    fixture.faults.set([
        Rule::RenumberObjects,
        object(CKO_PRIVATE_KEY, "key").fails(CKA_CLASS, CKR_FUNCTION_FAILED),
    ]);
    let failure = refused(key.sign(), ErrorCode::Module);
    assert_eq!(failure.ckr.as_deref(), Some("CKR_FUNCTION_FAILED"));
    fixture.faults.clear();
    key.sign().unwrap();
}

#[test]
fn a_handle_that_lay_idle_is_checked_before_it_signs() {
    let fixture = Fixture::new(KeyKind::P256);
    let other_key = fixture.add_key(KeyKind::P256, "other", 2);
    let server = fixture.start_quick();
    let client = server.client();
    let key = client.open(KEY).unwrap();
    let other = client.open("pkcs11:object=other").unwrap();
    key.sign().unwrap();
    other.sign().unwrap();

    thread::sleep(Duration::from_millis(1100));
    // Meanwhile the handle of one of them has come to mean another key.
    let point = ec_point(&fixture.key.spki);
    assert_ne!(point, ec_point(&other_key.spki));
    fixture.faults.set([
        object(CKO_PRIVATE_KEY, "other").answers(CKA_EC_POINT, point.clone()),
        object(CKO_PUBLIC_KEY, "other").answers(CKA_EC_POINT, point),
    ]);
    let before = fixture.faults.counts();
    refused(other.sign(), ErrorCode::KeyChanged);
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.of(C_SignInit), 0, "{calls}");

    let before = fixture.faults.counts();
    key.sign().unwrap();
    let calls = fixture.faults.counts().since(&before);
    assert!(calls.of(C_GetAttributeValue) > 0, "{calls}");
    assert!(
        calls.of(C_FindObjectsInit) <= 1,
        "its handle was good: {calls}"
    );

    let before = fixture.faults.counts();
    key.sign().unwrap();
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.total(), 2, "checked once: {calls}");
}

/// As another program does it.
fn delete_key(fixture: &Fixture) {
    for half in [Class::Private, Class::Public] {
        fixture.hsm.delete(&fixture.token, half, &[1]);
    }
}

/// `CKA_EC_POINT` of a P-256 key, an OCTET STRING around the point, which ends its public key.
fn ec_point(spki: &[u8]) -> Vec<u8> {
    let point = &spki[spki.len() - 65..];
    [&[0x04, 65], point].concat()
}
