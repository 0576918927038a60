//! Objects and tokens with names that are no text, or with none: what is printed of one means that one and no other.

use std::collections::BTreeSet;

use p11_client::{
    ErrorCode,
    message::{Class, KeyType},
};
use p11_fault_module::{cryptoki_sys::*, object, token};
use p11_tests::{
    client::TestClient,
    keys::{KeyKind, KeySpec},
    softhsm::Token,
};

use super::{Store, assert_refused};

/// Has the token make a P-256 pair of any label and id.
fn make(store: &Store, token: &Token, label: &[u8], id: &[u8]) {
    store.hsm.generate_any(token, "EC:secp256r1", label, id);
}

/// The URIs of the private keys of the token `device`.
fn private_keys(client: &TestClient) -> Vec<String> {
    let mut listed = client.list_keys("pkcs11:token=device").unwrap();
    listed.retain(|object| object.class == Class::Private);
    listed.into_iter().map(|object| object.uri).collect()
}

/// Each of these URIs means a key of its own, whichever way it is used.
fn each_means_its_own(store: &Store, uris: &[String]) {
    let server = store.server().start();
    let client = server.client();
    let mut keys = BTreeSet::new();
    for uri in uris {
        let key = client.open(uri).unwrap();
        assert_eq!(&key.told().uri, uri);
        key.sign().unwrap();
        keys.insert(key.told().spki.to_vec());
        let told = client.get_public_key(uri).unwrap();
        assert_eq!((&told.uri, &told.spki), (uri, &key.told().spki));
    }
    assert_eq!(keys.len(), uris.len());
    let mut left = uris.to_vec();
    for uri in uris {
        assert_eq!(client.delete_key(uri).unwrap().len(), 2, "{uri}");
        left.remove(0);
        assert_eq!(private_keys(&client), left);
        assert_refused(&server, uri, ErrorCode::KeyNotFound);
    }
}

#[test]
fn a_label_that_is_no_text_is_left_out_where_an_id_names_the_key() {
    let store = Store::new();
    let token = store.token("device");
    make(&store, &token, b"caf\xe9", &[5]);
    make(&store, &token, b"caf\xe9", &[6]);
    make(&store, &token, b"tab\tbed", &[7]);
    make(&store, &token, "café".as_bytes(), &[8]);
    let uris = private_keys(&store.server().start().client());
    let endings = [
        ";id=%05;type=private",
        ";id=%06;type=private",
        ";id=%08;object=caf%C3%A9;type=private",
        ";id=%07;object=tab%09bed;type=private",
    ];
    for ending in endings {
        assert!(uris.iter().any(|uri| uri.ends_with(ending)), "{uris:?}");
    }
    each_means_its_own(&store, &uris);
}

#[test]
fn a_key_with_neither_label_nor_id_is_named_by_having_none() {
    let store = Store::new();
    let token = store.token("device");
    let named = store.key(&token, "key", 1);
    make(&store, &token, b"", &[]);
    make(&store, &token, b"", &[2]);
    let server = store.server().start();
    let nameless = format!("{};id=;object=;type=private", token.uri());
    let listed = private_keys(&server.client());
    assert!(
        listed
            .iter()
            .any(|uri| uri.ends_with(";id=;object=;type=private")),
        "{listed:?}"
    );
    let key = server.client().open(&nameless).unwrap();
    key.sign().unwrap();
    assert_ne!(key.told().spki.as_ref(), named.spki);
    drop(server);
    each_means_its_own(&store, &listed);
}

#[test]
fn a_token_that_leaves_out_what_another_tells_is_named_by_its_slot() {
    let store = Store::new();
    let tokens = ["one", "two"].map(|label| store.token(label));
    let keys = ["first", "second"].map(|label| KeySpec::new(KeyKind::P256, label, &[1]));
    for (token, key) in tokens.iter().zip(&keys) {
        store.hsm.generate(token, key);
    }
    store.faults.set([
        token("one").tells("same", ""),
        token("two").tells("same", "22"),
    ]);
    let server = store.server().start();
    let client = server.client();
    let mut listed = client.list_tokens();
    listed.retain(|token| token.initialized);
    assert_eq!(listed.len(), 2);
    for told in listed {
        let own = match told.serial.as_str() {
            "" => "first",
            _ => "second",
        };
        assert_eq!(told.uri.contains(";slot-id="), told.serial.is_empty());
        let objects = client.list_keys(&told.uri).unwrap();
        assert!(objects.iter().all(|object| object.label == own));
    }
}

#[test]
fn an_edwards_key_on_another_curve_is_not_listed_as_ed25519() {
    const ED448: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x71];
    let store = Store::new();
    let token = store.token("device");
    store.key_of(KeyKind::Ed25519, &token, "key", 1);
    let classes = [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY];
    store
        .faults
        .set(classes.map(|class| object(class, "key").answers(CKA_EC_PARAMS, ED448)));
    let server = store.server().start();
    for object in server.client().list_keys("pkcs11:token=device").unwrap() {
        assert_eq!((object.key_type, object.bits), (KeyType::Unknown, 0));
    }
    store.faults.clear();
    let key = server.client().list_keys("pkcs11:token=device").unwrap();
    assert!(key.iter().all(|half| half.key_type == KeyType::Ed25519));
}
