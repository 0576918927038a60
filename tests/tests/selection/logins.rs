//! A PIN goes to the token that holds the key and to no other.

use p11_client::{ErrorCode, message::Class};
use p11_fault_module::token as fault_token;
use p11_tests::{
    keys::{Key, KeyKind},
    softhsm::Token,
    text::assert_contains,
};

use super::{Store, assert_opens, assert_refused};

/// A key of which nothing shows until somebody logs in.
fn hidden_key(store: &Store, token: &Token, label: &str) -> Key {
    let key = store.key_of(KeyKind::Rsa2048, token, label, 1);
    store.hsm.delete(token, Class::Public, &[1]);
    key
}

#[test]
fn no_pin_is_sent_where_two_tokens_could_hide_the_key() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    let key = hidden_key(&store, &two, "key");
    let server = store.server().start();
    let failure = assert_refused(&server, "pkcs11:object=key", ErrorCode::AmbiguousToken);
    for token in [&one, &two] {
        assert!(failure.message.contains(&token.serial), "{failure}");
    }
    assert_contains(&failure.message, ["add token=… or serial=…"]);
    assert!(failure.message.contains("may show in"), "{failure}");
    assert_eq!(store.logins(), 0);
    // With the attribute that it asks for, one login finds the key.
    assert_opens(&server, "pkcs11:token=two;object=key", &two, &key);
    assert_eq!(store.logins(), 1);
}

#[test]
fn a_pin_is_sent_where_one_token_alone_could_hide_the_key() {
    let store = Store::new();
    let one = store.token("one");
    let key = hidden_key(&store, &one, "key");
    let server = store.server().start();
    assert_opens(&server, "pkcs11:object=key", &one, &key);
    assert_eq!(store.logins(), 1);
}

#[test]
fn a_pin_is_sent_to_the_token_that_shows_the_key() {
    let store = Store::new();
    store.foreign_token("a");
    let token = store.token("b");
    store.foreign_token("c");
    let key = store.key(&token, "key", 1);
    let server = store.server().start();
    assert_opens(&server, "pkcs11:object=key", &token, &key);
    assert_eq!(store.logins(), 1);
}

#[test]
fn a_login_to_one_token_does_not_make_the_other_the_only_hiding_place() {
    let store = Store::new();
    store.foreign_token("a");
    let token = store.token("b");
    let (first, second) = (
        store.key(&token, "first", 1),
        store.key(&token, "second", 2),
    );
    let server = store.server().start();
    assert_opens(&server, "pkcs11:object=first", &token, &first);
    assert_eq!(store.logins(), 1);
    // In sight on b, which is logged in by now.
    assert_opens(&server, "pkcs11:object=second", &token, &second);
    // In sight nowhere: it could still be on a, whose PIN the server may not have.
    assert_refused(&server, "pkcs11:object=third", ErrorCode::AmbiguousToken);
    assert_eq!(store.logins(), 1);
}

#[test]
fn no_pin_is_sent_while_a_token_without_login_shows_the_key() {
    let store = Store::new();
    store.foreign_token("a");
    let token = store.token("b");
    let key = store.hsm.store_pair_for_everybody(&token, "key", &[1]);
    store.faults.set([fault_token("b").asks_no_login()]);
    let server = store.server().start();
    assert_opens(&server, "pkcs11:object=key", &token, &key);
    assert_eq!(store.logins(), 0);
}

#[test]
fn no_pin_is_sent_for_a_key_that_no_token_could_hold() {
    let store = Store::new();
    let token = store.token("device");
    store.key(&token, "key", 1);
    let server = store.server().start();
    assert!(
        server
            .client()
            .open("pkcs11:token=another;object=key")
            .is_err()
    );
    assert!(
        server
            .client()
            .open("pkcs11:token=device;object=key;type=cert")
            .is_err()
    );
    assert_eq!(store.logins(), 0);
}
