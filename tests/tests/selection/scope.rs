//! The server's own URI, the scope, restricts every request.

use p11_client::ErrorCode;

use super::{Store, assert_opens, assert_refused, log_lines};
use p11_tests::text::assert_in_order;

#[test]
fn attributes_of_the_scope_replace_those_of_the_request_with_a_warning() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    let key = store.key(&one, "key", 1);
    store.key(&two, "key", 1);
    let server = store.server().uri("pkcs11:token=one").start();
    // The reply names the key that was chosen, and so that it is not the one that was asked for.
    assert_opens(&server, "pkcs11:token=two;object=key", &one, &key);
    let warning = server.wait_for_log("is held to the server's own URI");
    assert!(warning.contains("WARN"), "{warning}");
    assert_in_order(
        &warning,
        ["pkcs11:token=two;object=key", "pkcs11:token=one", "token"],
    );
}

#[test]
fn the_request_adds_what_the_scope_leaves_open() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    store.key(&one, "a", 1);
    let b = store.key(&one, "b", 2);
    store.key(&two, "c", 3);
    let server = store.server().uri("pkcs11:token=one").start();
    assert_opens(&server, "pkcs11:object=b", &one, &b);
    assert_opens(&server, "pkcs11:token=one;id=%02", &one, &b);
    let failure = assert_refused(&server, "pkcs11:object=c", ErrorCode::KeyNotFound);
    assert!(failure.message.contains("token=one"), "{failure}");
    assert!(!failure.message.contains("token=two"), "{failure}");
    assert_eq!(
        log_lines(&server, "is held to"),
        [""; 0],
        "nothing was replaced"
    );
}

#[test]
fn a_scope_may_name_a_key() {
    let store = Store::new();
    let one = store.token("one");
    let a = store.key(&one, "a", 1);
    store.key(&one, "b", 2);
    let server = store.server().uri("pkcs11:object=a").start();
    assert_opens(&server, "pkcs11:object=b", &one, &a);
    // The id of b and the label of a are no key.
    assert_refused(&server, "pkcs11:id=%02", ErrorCode::KeyNotFound);
}

#[test]
fn sighup_takes_over_another_scope() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    let (first, second) = (store.key(&one, "key", 1), store.key(&two, "key", 2));
    let toml = |token| format!("[device.cryptoki]\nuri = \"pkcs11:token={token}\"\n");
    let server = store.server().tedge_toml(&toml("one")).start();
    assert_opens(&server, "pkcs11:object=key", &one, &first);
    std::fs::write(server.folder().join("tedge.toml"), toml("two")).unwrap();
    server.sighup();
    // What the URI meant before is no longer in scope.
    assert_opens(&server, "pkcs11:object=key", &two, &second);
}
