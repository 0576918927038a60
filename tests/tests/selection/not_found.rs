//! The error about a key or token that is not there, and what it says of those that are.

use p11_client::ErrorCode;
use p11_fault_module::{
    Function::{C_GetTokenInfo, C_OpenSession},
    cryptoki_sys::CKR_DEVICE_ERROR,
    on,
};
use p11_tests::{client::refused, server::Server, text::assert_in_order, tools::pkcs11_module};

use super::{PIN, Store, assert_refused, full_uri, log_lines};

#[test]
fn the_error_says_what_was_searched_where_and_what_is_there() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    let (first, second) = (store.key(&one, "first", 1), store.key(&two, "second", 2));
    let server = store.server().start();
    // Both are logged in to, so that nothing hides.
    for key in ["first", "second"] {
        server
            .client()
            .open(&format!("pkcs11:object={key}"))
            .unwrap();
    }
    let uri = format!("pkcs11:object=third?pin-value={PIN}");
    let failure = assert_refused(&server, &uri, ErrorCode::KeyNotFound);
    assert_in_order(
        &failure.message,
        [
            "pkcs11:object=third",
            "searched",
            &format!("serial={}", one.serial),
            &format!("serial={}", two.serial),
            "there are",
            &full_uri(&one, &first),
            &full_uri(&two, &second),
        ],
    );
    assert!(!failure.message.contains(PIN), "{failure}");
}

#[test]
fn the_error_names_the_nearest_five_keys_and_how_many_more_there_are() {
    let store = Store::new();
    let token = store.token("device");
    let keys: Vec<_> = (1..=12)
        .map(|id| store.key(&token, &format!("key-{id:02}"), id))
        .collect();
    let server = store.server().start();
    let failure = assert_refused(&server, "pkcs11:object=none", ErrorCode::KeyNotFound);
    let mut named: Vec<_> = keys[..5].iter().map(|key| full_uri(&token, key)).collect();
    named.push(" and 7 more".into());
    assert_in_order(&failure.message, named);
    assert!(!failure.message.contains("key-06"), "{failure}");

    let failure = assert_refused(&server, "pkcs11:object=key-1", ErrorCode::KeyNotFound);
    let named = [9, 10, 11, 0, 1].map(|at: usize| full_uri(&token, &keys[at]));
    assert_in_order(&failure.message, named);
}

#[test]
fn lists_of_tokens_in_errors_and_in_the_log_end() {
    let store = Store::new();
    let tokens: Vec<_> = (1..=7)
        .map(|number| store.token(&format!("token-{number}")))
        .collect();
    for token in &tokens {
        store.key(token, "key", 1);
    }
    let server = store.server().start();
    let client = server.client();
    let near = "pkcs11:token=token-7b";
    let missing = assert_refused(&server, near, ErrorCode::TokenNotFound);
    assert_in_order(
        &missing.message,
        ["token=token-7", "token=token-1", " and 2 more"],
    );
    for failure in [
        missing,
        refused(client.list_keys(near), ErrorCode::TokenNotFound),
        refused(client.list_keys("pkcs11:"), ErrorCode::AmbiguousToken),
        assert_refused(&server, "pkcs11:object=no", ErrorCode::AmbiguousToken),
    ] {
        assert_eq!(failure.message.matches(";token=").count(), 5, "{failure}");
        assert!(failure.message.contains(" and 2 more"), "{failure}");
    }
    client.open("pkcs11:object=key").unwrap();
    let warning = server.wait_for_log("several keys match");
    assert_eq!(warning.matches(";token=").count(), 5, "{warning}");
    assert!(warning.contains(" and 2 more"), "{warning}");
}

#[test]
fn the_error_says_which_tokens_there_are() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    let server = store.server().start();
    let failure = assert_refused(&server, "pkcs11:token=three", ErrorCode::TokenNotFound);
    // The nearest first.
    let serials = [&two, &one].map(|token| format!("serial={}", token.serial));
    assert_in_order(
        &failure.message,
        ["pkcs11:token=three", &serials[0], &serials[1]],
    );
}

#[test]
fn the_error_names_the_token_that_could_not_be_searched() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    store.key(&one, "key", 1);
    store.key(&two, "other", 1);
    store
        .faults
        .set([on(C_OpenSession).at("one").returns(CKR_DEVICE_ERROR)]);
    let server = store.server().start();
    let failure = assert_refused(&server, "pkcs11:object=key", ErrorCode::KeyNotFound);
    let (searched, failed) = failure
        .message
        .split_once("not searched")
        .unwrap_or_else(|| panic!("{failure}"));
    assert!(
        searched.contains(&two.serial) && !searched.contains(&one.serial),
        "{failure}"
    );
    assert_in_order(failed, [one.serial.as_str(), "CKR_DEVICE_ERROR"]);
}

#[test]
fn where_no_token_can_be_used_the_error_says_what_there_is() {
    let store = Store::new();
    let empty = store.server().start();
    let failure = assert_refused(&empty, "pkcs11:token=device", ErrorCode::TokenNotFound);
    assert_in_order(
        &failure.message,
        ["there is none", "not initialised", "slot-id=", "InitToken"],
    );

    store.token("device");
    let server = store.server().start();
    let fails = on(C_GetTokenInfo).returns(CKR_DEVICE_ERROR);
    store.faults.set([fails]);
    let failure = assert_refused(&server, "pkcs11:token=device", ErrorCode::TokenNotFound);
    let what = [
        "there is none",
        "slot",
        "C_GetTokenInfo returned CKR_DEVICE_ERROR",
    ];
    assert_in_order(&failure.message, what);

    // OpenSC without a card reader.
    let module = pkcs11_module("opensc-pkcs11.so");
    let server = Server::builder().pin(PIN).module(&module).start();
    let failure = assert_refused(&server, "pkcs11:token=device", ErrorCode::TokenNotFound);
    assert_in_order(&failure.message, ["there is none", "no slot", "pcscd"]);
    let status = server.client().status();
    assert!(!status.available);
    let trouble = status.trouble.unwrap();
    assert_in_order(&trouble, ["no slot", "pcscd"]);
    server.client().list_tokens();
    let said = log_lines(&server, "no token is there: ");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_in_order(&said[0], ["WARN", "no slot", "pcscd"]);
}

#[test]
fn a_slot_that_fails_is_named_in_the_error_beside_the_tokens_that_are_well() {
    let store = Store::new();
    store.token("one");
    let two = store.token("two");
    store.key(&two, "key", 1);
    let server = store.server().start();
    server.client().open("pkcs11:object=key").unwrap();
    let fails = on(C_GetTokenInfo).at("one").returns(CKR_DEVICE_ERROR);
    store.faults.set([fails]);
    let what = ["C_GetTokenInfo returned CKR_DEVICE_ERROR"];
    for (uri, code) in [
        ("pkcs11:token=one", ErrorCode::TokenNotFound),
        ("pkcs11:object=other", ErrorCode::KeyNotFound),
    ] {
        assert_in_order(&assert_refused(&server, uri, code).message, what);
    }
    let listed = server.client().list_keys("pkcs11:token=one");
    assert_in_order(&refused(listed, ErrorCode::TokenNotFound).message, what);
    // With the token that is named it has nothing to do.
    let uri = "pkcs11:token=two;object=other";
    let failure = assert_refused(&server, uri, ErrorCode::KeyNotFound);
    assert!(!failure.message.contains(what[0]), "{failure}");
}

#[test]
fn an_attribute_that_does_not_exist_is_named_with_the_right_one() {
    let store = Store::new();
    let token = store.token("device");
    store.key(&token, "key", 1);
    let server = store.server().start();
    for (uri, code, advice) in [
        (
            "pkcs11:token=device;label=key",
            ErrorCode::TokenNotFound,
            "`object=…`",
        ),
        (
            "pkcs11:object-type=private",
            ErrorCode::TokenNotFound,
            "`type=…`",
        ),
        (
            "pkcs11:token=device;id=01",
            ErrorCode::KeyNotFound,
            "`id=%01`",
        ),
    ] {
        let failure = assert_refused(&server, uri, code);
        assert!(failure.message.contains(advice), "{failure}");
    }
}
