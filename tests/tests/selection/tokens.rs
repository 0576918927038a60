//! Every token in scope is searched, in an order that does not change; what cannot be used is passed over.

use std::{thread, time::Duration};

use p11_client::ErrorCode;
use p11_fault_module::{
    Function::*,
    Rule,
    cryptoki_sys::{CKR_DEVICE_ERROR, CKR_GENERAL_ERROR},
    on,
};
use p11_tests::{client::refused, text::assert_in_order};

use super::{Store, assert_opens, assert_refused, full_uri, log_lines};

#[test]
fn all_tokens_are_searched() {
    let store = Store::new();
    let tokens = ["a", "b", "c"].map(|label| store.token(label));
    let keys =
        [1, 2, 3].map(|id| store.key(&tokens[usize::from(id) - 1], &format!("key-{id}"), id));
    let server = store.server().start();
    for (token, key) in tokens.iter().zip(&keys) {
        assert_opens(
            &server,
            &format!("pkcs11:object={}", key.spec.label),
            token,
            key,
        );
    }
}

#[test]
fn tokens_are_in_the_order_of_labels_then_of_serial_numbers() {
    let store = Store::new();
    // SoftHSM lists them by slot ids, which it makes at random.
    let mut tokens = ["d", "b", "twin", "twin", "a", "c"].map(|label| store.token(label));
    let keys: Vec<_> = tokens
        .iter()
        .map(|t| (t.serial.clone(), store.key(t, "key", 1)))
        .collect();
    tokens.sort_by_key(|token| (token.label.clone(), token.serial.clone()));
    let of = |serial| &keys.iter().find(|(of, _)| of == serial).unwrap().1;
    let server = store.server().start();
    assert_opens(
        &server,
        "pkcs11:object=key",
        &tokens[0],
        of(&tokens[0].serial),
    );
    let warning = server.wait_for_log("several keys match");
    assert_in_order(
        &warning,
        tokens[..5]
            .iter()
            .map(|token| full_uri(token, of(&token.serial))),
    );
    // Twins are told apart by their serial numbers.
    for twin in &tokens[4..] {
        let uri = format!("pkcs11:token=twin;serial={};object=key", twin.serial);
        assert_opens(&server, &uri, twin, of(&twin.serial));
    }
}

#[test]
fn the_order_of_tokens_does_not_follow_the_slots() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    let key = store.key(&one, "key", 1);
    store.key(&two, "key", 1);
    for rules in [
        vec![],
        vec![Rule::SwapSlots("one".into(), "two".into())],
        vec![Rule::SlotOffset(7)],
    ] {
        store.faults.set(rules);
        let server = store.server().start();
        assert_opens(&server, "pkcs11:object=key", &one, &key);
    }
}

#[test]
fn a_token_that_is_not_initialised_is_skipped_with_a_warning() {
    let store = Store::new();
    let one = store.token("one");
    let key = store.key(&one, "key", 1);
    let server = store.server().start();
    assert_opens(&server, "pkcs11:object=key", &one, &key);
    // And that is all: no session is tried on it.
    let warnings = log_lines(&server, "skipping");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("WARN"), "{warnings:?}");
    assert!(
        warnings[0].contains("a token that is not initialised slot="),
        "{warnings:?}"
    );
}

#[test]
fn a_slot_that_fails_is_skipped_with_a_warning_wherever_it_fails() {
    let store = Store::new();
    let (sick, well) = (store.token("a-sick-one"), store.token("well"));
    store.key(&sick, "key", 1);
    let key = store.key(&well, "key", 1);
    for function in [
        C_GetSlotInfo,
        C_GetTokenInfo,
        C_OpenSession,
        C_FindObjectsInit,
        C_FindObjects,
        C_GetAttributeValue,
    ] {
        store
            .faults
            .set([on(function).at("a-sick-one").returns(CKR_DEVICE_ERROR)]);
        let server = store.server().start();
        assert_opens(&server, "pkcs11:object=key", &well, &key);
        let warning =
            server.wait_for_log(&format!("{} returned CKR_DEVICE_ERROR", function.name()));
        assert!(warning.contains("WARN"), "{warning}");
        assert!(warning.contains("skipping"), "{warning}");
    }
}

#[test]
fn a_key_whose_token_fails_is_not_told_as_changed() {
    let store = Store::new();
    let (one, two) = (store.token("one"), store.token("two"));
    store.key(&one, "key", 1);
    store.key(&two, "key", 1);
    let server = store.server().start();
    let key = server.client().open("pkcs11:object=key").unwrap();
    key.sign().unwrap();
    // Its session is lost, and so is every new one.
    store.faults.set([
        on(C_SignInit).next(1).returns(CKR_GENERAL_ERROR),
        on(C_OpenSession).at("one").returns(CKR_DEVICE_ERROR),
    ]);
    let failure = refused(key.sign(), ErrorCode::Module);
    assert_eq!(failure.ckr.as_deref(), Some("CKR_DEVICE_ERROR"));
    store.faults.clear();
    key.sign().unwrap();
}

#[test]
fn the_first_token_that_another_program_makes_is_found_within_seconds() {
    let store = Store::new();
    let server = store.server().start();
    let uri = "pkcs11:token=late;object=key";
    let miss = assert_refused(&server, uri, ErrorCode::TokenNotFound);
    let (_, hint) = miss.message.split_once("may show in ").unwrap();
    let seconds: u64 = hint.split(' ').next().unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds), "{miss}");
    let token = store.token("late");
    let key = store.key(&token, "key", 1);
    thread::sleep(Duration::from_secs(seconds));
    assert_opens(&server, uri, &token, &key);
}
