//! Which of several keys that match is chosen, and what is said of it.

use p11_client::{ErrorCode, message::Class};
use p11_tests::{client::refused, keys::Key, softhsm::Token, text::assert_contains};

use super::{Store, assert_opens, assert_refused, full_uri, log_lines};

/// One token in which three keys have the same id; their labels are in no order.
fn three_of_one_id(store: &Store) -> (Token, [Key; 3]) {
    let token = store.token("device");
    let mut keys = ["b", "c", "a"].map(|label| store.key(&token, label, 1));
    keys.sort_by_key(|key| key.spec.label.clone());
    (token, keys)
}

#[test]
fn the_first_by_label_is_chosen_with_a_warning_that_lists_all() {
    let store = Store::new();
    let (token, keys) = three_of_one_id(&store);
    let server = store.server().start();
    let note = |uri: &str| server.client().open(uri).unwrap().told().note.clone();
    assert_eq!(note(&full_uri(&token, &keys[0])), None, "it means one");
    assert_opens(&server, "pkcs11:id=%01", &token, &keys[0]);
    let warning = server.wait_for_log("several keys match pkcs11:id=%01");
    assert!(warning.contains("WARN"), "{warning}");
    for key in &keys {
        assert!(warning.contains(&full_uri(&token, key)), "{warning}");
    }
    for _ in 0..2 {
        let note = note("pkcs11:id=%01").unwrap();
        assert_contains(&note, ["3 keys match pkcs11:id=%01", "this one was taken"]);
    }
    let opened = server
        .client()
        .open_certified("pkcs11:id=%01", &keys[0].spki);
    assert_eq!(opened.unwrap().told().note, None, "the client has said it");
    // Each has its own public key, although their ids are the same.
    for key in &keys {
        let uri = full_uri(&token, key);
        assert_opens(&server, &uri, &token, key);
        assert_eq!(note(&uri), None, "it means one");
    }
}

#[test]
fn the_certificate_decides_among_keys_of_one_token() {
    let store = Store::new();
    let (token, keys) = three_of_one_id(&store);
    let server = store.server().start();
    for key in keys.iter().rev() {
        let opened = server
            .client()
            .open_certified("pkcs11:id=%01", &key.spki)
            .unwrap();
        assert_eq!(opened.told().uri, full_uri(&token, key));
    }
    assert_eq!(
        log_lines(&server, "several keys match"),
        [""; 0],
        "there was no choice to make"
    );
}

#[test]
fn the_certificate_decides_among_tokens_and_no_other_is_logged_in_to() {
    let store = Store::new();
    let (one, two) = (store.foreign_token("one"), store.token("two"));
    store.key(&one, "key", 1);
    let key = store.key(&two, "key", 1);
    let server = store.server().start();
    let opened = server
        .client()
        .open_certified("pkcs11:object=key", &key.spki)
        .unwrap();
    assert_eq!(opened.told().uri, full_uri(&two, &key));
    assert_eq!(store.logins(), 1);
}

#[test]
fn no_key_is_chosen_for_the_certificate_of_another() {
    let store = Store::new();
    let token = store.token("device");
    let (key, other) = (store.key(&token, "key", 1), store.key(&token, "other", 2));
    let server = store.server().start();
    let answer = server
        .client()
        .open_certified("pkcs11:object=key", &other.spki);
    let failure = refused(answer, ErrorCode::KeyNotFound);
    let identity = server
        .client()
        .open("pkcs11:object=other")
        .unwrap()
        .told()
        .identity;
    assert!(failure.message.contains(&identity.to_string()), "{failure}");
    assert_contains(&failure.message, [&full_uri(&token, &key)]);
}

#[test]
fn a_key_that_cannot_sign_is_not_chosen() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    store.hsm.store_pair_that_cannot_sign(&one, "key", &[1]);
    let server = store.server().start();
    let failure = assert_refused(&server, "pkcs11:object=key", ErrorCode::KeyNotFound);
    assert_contains(&failure.message, ["no key that can sign"]);
    drop(server);
    let signs = store.key(&one, "zzz", 1);
    let elsewhere = store.key(&two, "key", 2);
    let server = store.server().start();
    assert_opens(&server, "pkcs11:token=one;id=%01", &one, &signs);
    assert_opens(&server, "pkcs11:object=key", &two, &elsewhere);
}

#[test]
fn a_key_with_public_key_and_certificate_is_one_key() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    store.certify(&token, &key, "certificate", 1);
    let server = store.server().start();
    assert_opens(&server, "pkcs11:id=%01", &token, &key);
    assert_eq!(log_lines(&server, "several keys match"), [""; 0]);
}

#[test]
fn certificates_and_public_keys_of_others_are_no_keys_to_choose_from() {
    let store = Store::new();
    let (token, other) = (store.token("device"), store.token("other"));
    let key = store.key(&token, "key", 1);
    // As of authorities, which nobody on this token signs for.
    for (id, label) in [(2, "authority"), (3, "zone")] {
        let authority = store.key(&other, label, id);
        store.certify(&token, &authority, label, id);
        let hsm = &store.hsm;
        hsm.store_public_key(&token, label, &[id], &authority.spki);
    }
    let server = store.server().start();
    assert_opens(&server, "pkcs11:token=device", &token, &key);
    assert_eq!(log_lines(&server, "several keys match"), [""; 0]);
}

#[test]
fn a_key_with_two_certificates_is_one_key() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    store.hsm.delete(&token, Class::Public, &[1]);
    store.certify(&token, &key, "last year's", 1);
    store.certify(&token, &key, "this year's", 1);
    let server = store.server().start();
    assert_opens(&server, "pkcs11:object=key", &token, &key);
}

#[test]
fn halves_that_cannot_be_told_apart_are_no_guess() {
    let store = Store::new();
    let token = store.token("device");
    store.key(&token, "key", 1);
    store.key(&token, "key", 1);
    let server = store.server().start();
    let failure = assert_refused(&server, "pkcs11:object=key", ErrorCode::KeyNotFound);
    let reason = "several public keys have its id and label";
    assert!(failure.message.contains(reason), "{failure}");
    let deleted = server.client().delete_key("pkcs11:object=key");
    refused(deleted, ErrorCode::AmbiguousKey);
}

#[test]
fn a_public_key_is_not_lent_to_another_key_of_its_id() {
    let store = Store::new();
    let token = store.token("device");
    // The second one's public half is all that is left of that id.
    store.key(&token, "first", 1);
    store.hsm.delete(&token, Class::Public, &[1]);
    let second = store.key(&token, "second", 1);
    let server = store.server().start();
    assert_opens(&server, "pkcs11:id=%01", &token, &second);
    assert_refused(&server, "pkcs11:object=first", ErrorCode::KeyNotFound);
}

#[test]
fn of_two_keys_of_one_id_the_named_one_is_deleted() {
    let store = Store::new();
    let token = store.token("device");
    let (a, b) = (store.key(&token, "a", 1), store.key(&token, "b", 1));
    let server = store.server().start();
    let deleted = server.client().delete_key(&full_uri(&token, &b)).unwrap();
    assert_eq!(deleted.len(), 2, "{deleted:?}");
    assert_opens(&server, "pkcs11:id=%01", &token, &a);
}
