//! A key is found by its private object, or, where that hides until login, by its public key or
//! certificate; `type` names the pair.

use p11_client::{ErrorCode, message::Class};
use p11_tests::keys::KeyKind;

use super::{Store, assert_opens, assert_refused};

#[test]
fn a_key_is_found_by_its_private_object_alone() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key_of(KeyKind::Rsa2048, &token, "key", 1);
    store.hsm.delete(&token, Class::Public, &[1]);
    let server = store.server().start();
    assert_opens(&server, "pkcs11:object=key", &token, &key);
}

#[test]
fn a_key_is_found_by_a_public_key_of_another_label_and_the_same_id() {
    let store = Store::new();
    let (token, other) = (store.token("device"), store.foreign_token("another"));
    let key = store.key(&token, "private", 1);
    store.key(&other, "something else", 1);
    store.hsm.delete(&token, Class::Public, &[1]);
    store
        .hsm
        .store_public_key(&token, "public", &[1], &key.spki);
    let server = store.server().start();
    // The private object of this label hides, and nothing else has it.
    assert_opens(&server, "pkcs11:object=public", &token, &key);
    assert_opens(&server, "pkcs11:token=device;object=private", &token, &key);
}

#[test]
fn a_key_is_found_by_a_public_key_of_another_id_and_the_same_label() {
    let store = Store::new();
    let (token, other) = (store.token("device"), store.foreign_token("another"));
    let key = store.key_of(KeyKind::Rsa2048, &token, "key", 1);
    store.key(&other, "something else", 1);
    store.hsm.delete(&token, Class::Public, &[1]);
    store.hsm.store_public_key(&token, "key", &[2], &key.spki);
    let server = store.server().start();
    for uri in ["pkcs11:object=key", "pkcs11:id=%02"] {
        assert_opens(&server, uri, &token, &key);
    }
}

#[test]
fn a_key_is_found_by_a_certificate_of_another_label_and_the_same_id() {
    let store = Store::new();
    let (token, other) = (store.token("device"), store.foreign_token("another"));
    let key = store.key(&token, "key", 1);
    store.key(&other, "something else", 1);
    store.hsm.delete(&token, Class::Public, &[1]);
    store.certify(&token, &key, "certificate", 1);
    let server = store.server().start();
    assert_opens(&server, "pkcs11:object=certificate", &token, &key);
    // The private object of an EC key in SoftHSM has no public point, so that is the certificate's.
    assert_opens(&server, "pkcs11:token=device;object=key", &token, &key);
}

#[test]
fn a_key_whose_public_key_is_nowhere_is_refused_with_the_reason() {
    let store = Store::new();
    let token = store.token("device");
    store.key(&token, "key", 1);
    store.hsm.delete(&token, Class::Public, &[1]);
    let server = store.server().start();
    let failure = assert_refused(&server, "pkcs11:object=key", ErrorCode::KeyNotFound);
    let reason = "store the public key or the certificate with the same id";
    assert!(failure.message.contains(reason), "{failure}");
}

#[test]
fn type_private_and_type_public_name_the_pair() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    let only_private = store.key_of(KeyKind::Rsa2048, &token, "only-private", 2);
    store.hsm.delete(&token, Class::Public, &[2]);
    let server = store.server().start();
    for class in ["private", "public"] {
        assert_opens(
            &server,
            &format!("pkcs11:object=key;type={class}"),
            &token,
            &key,
        );
        let uri = format!("pkcs11:object=only-private;type={class}");
        assert_opens(&server, &uri, &token, &only_private);
    }
}

#[test]
fn every_other_type_matches_no_key() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    store.certify(&token, &key, "key", 1);
    let server = store.server().start();
    // Logged in, so that all is in sight.
    assert_opens(&server, "pkcs11:object=key", &token, &key);
    for class in ["cert", "data", "secret-key"] {
        let uri = format!("pkcs11:object=key;type={class}");
        assert_refused(&server, &uri, ErrorCode::KeyNotFound);
    }
}
