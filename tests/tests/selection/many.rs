//! Hundreds of tokens and thousands of objects: what is asked for is found, and answers and lines of the log end.

use std::collections::BTreeSet;

use p11_client::{ErrorCode, Failure, message::Class};
use p11_fault_module::{
    Function::{C_DestroyObject, C_OpenSession},
    cryptoki_sys::{CKR_ACTION_PROHIBITED, CKR_DEVICE_ERROR},
    on,
};
use p11_proto::tedge1;
use p11_tests::{
    client::{P256, refused},
    fixture::{Fixture, KEY},
    keys::{Key, KeyKind},
    raw_client::ask_tedge1,
    server::Server,
    softhsm::Token,
    text::assert_in_order,
};

use super::{Store, assert_opens, assert_refused, log_lines};

/// Bytes that a message which names five tokens or keys may have.
const MESSAGE: usize = 2000;

/// A message ends after five names, and says how many more there are.
#[track_caller]
fn names_five(failure: &Failure, more: usize) {
    let message = &failure.message;
    assert!(
        message.len() < MESSAGE,
        "{} bytes: {message}",
        message.len()
    );
    assert!(message.contains(&format!(" and {more} more")), "{message}");
    let named = message.matches("manufacturer=").count();
    assert!([5, 10].contains(&named), "{message}");
}

/// No line of the log is longer than such a message.
fn lines_end(server: &Server) {
    let log = server.log();
    let longest = log.lines().max_by_key(|line| line.len()).unwrap();
    assert!(
        longest.len() < MESSAGE,
        "{} bytes: {longest}",
        longest.len()
    );
}

/// 200 tokens, `token-000` and its copies, with the same five keys each.
fn two_hundred_tokens(store: &Store) -> (Token, Vec<Key>) {
    let first = store.token("token-000");
    let kinds = [
        KeyKind::P256,
        KeyKind::P384,
        KeyKind::P521,
        KeyKind::Rsa2048,
        KeyKind::Ed25519,
    ];
    let keys = (1..).zip(kinds);
    let keys = keys.map(|(id, kind)| store.key_of(kind, &first, &format!("key-{id}"), id));
    let keys = keys.collect();
    let labels = (1..200).map(|number| format!("token-{number:03}"));
    store.hsm.copy_token(&first, labels);
    (first, keys)
}

#[test]
fn each_of_two_hundred_tokens_is_listed_and_its_keys_sign() {
    let store = Store::new();
    let (first, keys) = two_hundred_tokens(&store);
    let server = store.server().start();
    let client = server.client();
    let mut tokens = client.list_tokens();
    tokens.retain(|token| token.initialized);
    let uris: BTreeSet<_> = tokens.iter().map(|token| token.uri.clone()).collect();
    assert_eq!(uris.len(), 200);
    for uri in &uris {
        let listed = client.list_keys(uri).unwrap();
        assert_eq!(listed.len(), 10, "{uri}");
        assert!(listed.iter().all(|object| object.uri.starts_with(uri)));
    }
    for label in ["token-000", "token-099", "token-199"] {
        let mut listed = client.list_keys(&client.token(label).uri).unwrap();
        listed.retain(|object| object.class == Class::Private);
        for (object, key) in listed.iter().zip(&keys) {
            let opened = client.open(&object.uri).unwrap();
            assert_eq!(opened.told().uri, object.uri);
            assert_eq!(opened.told().spki.as_ref(), key.spki);
            opened.sign().unwrap();
            assert_eq!(client.get_public_key(&object.uri).unwrap().uri, object.uri);
        }
    }

    // One that only one of them has.
    let made = client.create_key("pkcs11:token=token-137", P256, "own", Some(&[9]));
    let made = made.unwrap();
    let own = client.open("pkcs11:object=own").unwrap();
    assert_eq!(own.told().uri, made.uri);
    own.sign().unwrap();
    assert_eq!(client.delete_key(&made.uri).unwrap().len(), 2);

    // All have this one: the first is taken, with a warning.
    assert_opens(&server, "pkcs11:object=key-1", &first, &keys[0]);
    let warnings = log_lines(&server, "several keys match");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].ends_with(" and 195 more"), "{warnings:?}");

    // A miss may have the module reloaded, after which all hide again.
    let miss = client.open("pkcs11:object=own").err().unwrap();
    let all_are_seen = miss.code == ErrorCode::KeyNotFound;
    names_five(&miss, if all_are_seen { 995 } else { 195 });
    lines_end(&server);
}

#[test]
fn a_miss_among_two_hundred_tokens_names_the_nearest_five() {
    let store = Store::new();
    two_hundred_tokens(&store);
    let server = store.server().start();
    let client = server.client();
    let open = |uri| client.open(uri).map(drop);
    let list = |uri| client.list_keys(uri).map(drop);
    let public = |uri| client.get_public_key(uri).map(drop);
    let create = |uri| client.create_key(uri, P256, "own", None).map(drop);
    let delete = |uri| client.delete_key(uri).map(drop);
    let (none, several) = (ErrorCode::TokenNotFound, ErrorCode::AmbiguousToken);
    let near = "pkcs11:token=token-1999;object=key-1";
    for (answer, code, nearest) in [
        (open("pkcs11:object=none"), several, "token-000"),
        (public("pkcs11:object=none"), several, "token-000"),
        (open(near), none, "token-199"),
        (list(near), none, "token-199"),
        (public(near), none, "token-199"),
        (create(near), none, "token-199"),
        (delete(near), none, "token-199"),
        (list("pkcs11:"), several, "token-000"),
        (create("pkcs11:"), several, "token-000"),
        (delete("pkcs11:id=%01"), several, "token-000"),
    ] {
        let failure = refused(answer, code);
        names_five(&failure, 195);
        let first = failure.message.split_once(";token=").unwrap().1;
        assert!(first.starts_with(nearest), "{failure}");
    }
    lines_end(&server);
}

#[test]
fn one_of_three_thousand_objects_is_found_and_what_is_said_of_the_others_ends() {
    const OBJECTS: usize = 3000;
    /// Pairs of one label and id beside the key, which are copies of one.
    const COPIES: usize = (OBJECTS - 2) / 2;
    let fixture = Fixture::new(KeyKind::P256);
    fixture.fill(OBJECTS);
    let server = fixture.start();
    let client = server.client();
    client.open(KEY).unwrap().sign().unwrap();
    client.open("pkcs11:object=other").unwrap().sign().unwrap();
    let warning = server.wait_for_log("several keys match");
    assert!(
        warning.contains(&format!(" and {} more", COPIES - 5)),
        "{warning}"
    );

    let miss = refused(client.open("pkcs11:object=own"), ErrorCode::KeyNotFound);
    assert!(
        miss.message
            .contains(&format!(" and {} more", COPIES + 1 - 5)),
        "{miss}"
    );
    let several = refused(
        client.delete_key("pkcs11:object=other"),
        ErrorCode::AmbiguousKey,
    );
    assert!(
        several
            .message
            .contains(&format!(" and {} more", OBJECTS - 2 - 5)),
        "{several}"
    );
    assert_eq!(client.list_keys("pkcs11:object=key").unwrap().len(), 2);

    lines_end(&server);
}

#[test]
fn all_that_a_released_client_deletes_at_once_is_named_by_five_and_a_number() {
    const OBJECTS: usize = 302;
    let fixture = Fixture::new(KeyKind::P256);
    fixture.fill(OBJECTS);
    let server = fixture.start();
    let client = server.client();
    let delete = || {
        let delete = tedge1::DeleteKey {
            uri: "pkcs11:object=other".into(),
            pin: None,
        };
        ask_tedge1(server.socket(), &tedge1::Request::DeleteKey(delete))
    };
    let fails = on(C_DestroyObject).every(11);
    fixture.faults.set([fails.returns(CKR_ACTION_PROHIBITED)]);
    let tedge1::Response::Error(partly) = delete() else {
        panic!("all are deleted");
    };
    let left = format!(" and {} more: ", OBJECTS - 2 - 10 - 5);
    assert_in_order(&partly, ["deleted", " and 5 more, but not ", &left]);
    assert!(partly.len() < 2 * MESSAGE, "{partly}");
    fixture.faults.clear();
    let deleted = delete();
    let tedge1::Response::DeleteKey(uris) = &deleted else {
        panic!("{deleted:?}");
    };
    assert_eq!(uris.len(), 1, "all have the same");
    assert_eq!(client.list_keys("pkcs11:token=device").unwrap().len(), 2);
    client.open(KEY).unwrap().sign().unwrap();
    lines_end(&server);
}

#[test]
fn what_cannot_be_used_is_named_by_five_and_a_number_too() {
    let store = Store::new();
    let first = store.token("token-1");
    let key = store.key(&first, "key", 1);
    for id in 2..14 {
        let label = format!("other-{id}");
        let curve = "EC:secp256k1";
        store
            .hsm
            .generate_any(&first, curve, label.as_bytes(), &[id]);
    }
    let labels: Vec<_> = (2..9).map(|number| format!("token-{number}")).collect();
    store.hsm.copy_token(&first, labels.clone());
    let fails = |label: &String| on(C_OpenSession).at(label).returns(CKR_DEVICE_ERROR);
    store.faults.set(labels.iter().map(fails));
    let server = store.server().start();
    assert_opens(&server, "pkcs11:", &first, &key);
    let failure = assert_refused(&server, "pkcs11:id=%99", ErrorCode::KeyNotFound);
    assert_in_order(&failure.message, ["not searched", " and 2 more"]);
    let failure = assert_refused(
        &server,
        "pkcs11:token=token-1;type=private;object=other-3",
        ErrorCode::KeyNotFound,
    );
    assert_in_order(
        &failure.message,
        ["object=other-3", "cannot be used: the EC key"],
    );
    let warned = log_lines(&server, "cannot be used");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].ends_with(" and 7 more"), "{warned:?}");
    lines_end(&server);
}
