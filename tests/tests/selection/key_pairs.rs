//! A key is found by its private object, or, where that hides until login, by its public key or
//! certificate; `type` names the pair.

use p11_client::{ErrorCode, message::Class};
use p11_fault_module::Rule;
use p11_tests::{
    client::refused,
    fixture::assert_no_search_after_idleness,
    keys::{Key, KeyKind},
    pki::certificate_for,
    softhsm::Token,
    text::assert_contains,
};

use super::{Store, assert_opens, assert_refused, full_uri};

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

/// A token with a key of which it shows nothing but the private object, as where the certificate is on the client's disk
/// alone. In SoftHSM that object of an EC key does not tell the point.
fn bare_key(store: &Store) -> (Token, Key) {
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    store.hsm.delete(&token, Class::Public, &[1]);
    (token, key)
}

#[test]
fn a_key_whose_public_key_is_nowhere_is_the_one_that_the_client_gives() {
    let store = Store::new();
    let (token, key) = bare_key(&store);
    // Neither could be it.
    store.key_of(KeyKind::P384, &token, "other-curve", 2);
    store.hsm.delete(&token, Class::Public, &[2]);
    store.key(&token, "told", 3);
    let server = store.server().quick().start();
    for uri in ["pkcs11:", "pkcs11:token=device;object=key"] {
        let opened = server.client().open_certified(uri, &key.spki).unwrap();
        assert_eq!(opened.told().uri, full_uri(&token, &key));
        assert_eq!(opened.told().spki.as_ref(), key.spki);
        let note = opened.told().note.as_ref().unwrap();
        assert_contains(note, ["taken at its word", &full_uri(&token, &key)]);
        opened.sign().unwrap();
    }
    let note = server.wait_for_log("taken at its word");
    assert_contains(&note, ["WARN", &full_uri(&token, &key)]);

    // It stays the one, in two calls a signature and after trouble.
    let opened = server.client().open_certified("pkcs11:", &key.spki);
    let opened = opened.unwrap();
    let before = store.faults.counts();
    opened.sign().unwrap();
    assert_eq!(store.faults.counts().since(&before).total(), 2);
    assert_no_search_after_idleness(&store.faults, &opened);
    store.faults.set([Rule::RenumberObjects]);
    opened.sign().unwrap();
    server.sighup();
    opened.sign().unwrap();
}

#[test]
fn a_client_is_not_taken_at_its_word_where_two_keys_could_be_its_own() {
    let store = Store::new();
    let (token, key) = bare_key(&store);
    let other = store.key(&token, "other", 2);
    store.hsm.delete(&token, Class::Public, &[2]);
    let server = store.server().start();
    let client = server.client();
    refused(
        client.open_certified("pkcs11:", &key.spki),
        ErrorCode::KeyNotFound,
    );
    let certificate = certificate_for(&key.spki);
    refused(
        client.import_certificate("pkcs11:", &certificate),
        ErrorCode::KeyNotFound,
    );
    for (uri, key) in [("pkcs11:object=key", &key), ("pkcs11:id=%02", &other)] {
        client
            .open_certified(uri, &key.spki)
            .unwrap()
            .sign()
            .unwrap();
    }
    // Nor where it is told whose public key it is.
    let told = store.key(&token, "told", 3);
    let certificate = certificate_for(&told.spki);
    refused(
        client.open_certified("pkcs11:object=key", &told.spki),
        ErrorCode::KeyNotFound,
    );
    refused(
        client.import_certificate("pkcs11:object=key", &certificate),
        ErrorCode::KeyNotFound,
    );
}

#[test]
fn the_certificate_of_a_key_whose_public_key_is_nowhere_can_be_stored() {
    let store = Store::new();
    let (token, key) = bare_key(&store);
    let server = store.server().start();
    let client = server.client();
    let certificate = certificate_for(&key.spki);
    let stored = client.import_certificate("pkcs11:object=key", &certificate);
    stored.unwrap();
    assert_contains(
        server.wait_for_log("taken at its word"),
        [&full_uri(&token, &key)],
    );
    assert_opens(&server, "pkcs11:object=key", &token, &key);
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
