//! The error about a key or token that is not there, and what it says of those that are.

use p11_client::ErrorCode;
use p11_fault_module::{
    Function::{C_GetTokenInfo, C_OpenSession},
    cryptoki_sys::CKR_DEVICE_ERROR,
    on,
};
use p11_tests::{server::Server, text::assert_in_order, tools::pkcs11_module};

use super::{PIN, Store, assert_refused, full_uri};

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
fn the_error_names_ten_keys_at_most() {
    let store = Store::new();
    let token = store.token("device");
    let keys: Vec<_> = (1..=12)
        .map(|id| store.key(&token, &format!("key-{id:02}"), id))
        .collect();
    let server = store.server().start();
    let failure = assert_refused(&server, "pkcs11:object=none", ErrorCode::KeyNotFound);
    let mut named: Vec<_> = keys[..10].iter().map(|key| full_uri(&token, key)).collect();
    named.push(" and 2 more".into());
    assert_in_order(&failure.message, named);
    assert!(!failure.message.contains("key-11"), "{failure}");
}

#[test]
fn the_error_says_which_tokens_there_are() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    let server = store.server().start();
    let failure = assert_refused(&server, "pkcs11:token=three", ErrorCode::TokenNotFound);
    let serials = [&one, &two].map(|token| format!("serial={}", token.serial));
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
        ["there is none", "not initialised", "slot-id="],
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
