//! A request that would change something outside of the server's own URI is refused, not redirected.

use p11_client::ErrorCode;
use p11_fault_module::Function::{
    C_CreateObject, C_DestroyObject, C_GenerateKeyPair, C_InitPIN, C_InitToken, C_Login, C_SetPIN,
};
use p11_tests::{
    fixture::{Fixture, KEY, PIN, SO_PIN, refused},
    keys::KeyKind,
};

use crate::{
    certificates::certificate_for,
    manager::{Manager, P256, pin, token},
};

/// Nothing was changed, and no PIN was tried.
fn is_untouched(fixture: &Fixture) {
    let calls = fixture.faults.counts();
    for function in [
        C_CreateObject,
        C_DestroyObject,
        C_GenerateKeyPair,
        C_InitPIN,
        C_InitToken,
        C_SetPIN,
        C_Login,
    ] {
        assert_eq!(calls.of(function), 0, "{calls}");
    }
}

#[test]
fn another_token_is_out_of_scope_for_every_change() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = fixture.server().pin(PIN).uri("pkcs11:token=device").start();
    let manager = Manager::of(&server);
    let second = "pkcs11:token=second;object=key";
    let uri = Some(second.into());
    for outcome in [
        manager.create(second, P256, "made", None).map(drop),
        manager.import(second, &certificate_for(&fixture)).map(drop),
        manager.delete(second).map(drop),
        manager.change_pin(pin("305419").uri(uri)).map(drop),
    ] {
        let told = refused(outcome, ErrorCode::OutOfScope);
        for part in ["token=second", "pkcs11:token=device: token differs"] {
            assert!(told.message.contains(part), "no {part:?} in: {told}");
        }
    }
    is_untouched(&fixture);
}

#[test]
fn another_object_is_out_of_scope_too() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).uri(KEY).start();
    let manager = Manager::of(&server);
    refused(manager.delete("pkcs11:object=other"), ErrorCode::OutOfScope);
    // A new key would be one that nobody could use here.
    let told = refused(
        manager.create("pkcs11:token=device", P256, "other", None),
        ErrorCode::OutOfScope,
    );
    assert!(told.message.contains("object differs"), "{told}");
    is_untouched(&fixture);
    manager.create("pkcs11:", P256, "key", None).unwrap();
}

#[test]
fn what_a_request_leaves_open_the_scope_decides() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = fixture.server().pin(PIN).uri("pkcs11:token=device").start();
    let manager = Manager::of(&server);
    let made = manager.create("pkcs11:", P256, "made", None).unwrap();
    assert!(made.uri.contains("token=device"), "{}", made.uri);
    assert_eq!(manager.delete("pkcs11:object=made").unwrap().len(), 2);
    let changed = manager.change_pin(pin("305419")).unwrap();
    assert!(changed.uri.contains("token=device"), "{changed:?}");
}

#[test]
fn either_type_of_key_lies_in_a_scope_of_the_other() {
    let fixture = Fixture::new(KeyKind::P256);
    let scope = "pkcs11:token=device;object=key;type=private";
    let server = fixture.server().pin(PIN).uri(scope).start();
    let manager = Manager::of(&server);
    let listed = manager.keys("pkcs11:token=device").unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(
        manager
            .delete("pkcs11:object=key;type=public")
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_token_is_made_within_the_scope_of_slot_and_model_alone() {
    let fixture = Fixture::new(KeyKind::P256);
    let start = |uri| fixture.server().pin(PIN).uri(uri).start();

    let server = start("pkcs11:model=other");
    let uri = Some("pkcs11:model=SoftHSM%20v2".into());
    let told = refused(
        Manager::of(&server).init(token("new").uri(uri)),
        ErrorCode::OutOfScope,
    );
    assert!(told.message.contains("model differs"), "{told}");
    let left_open = Manager::of(&server).init(token("new"));
    refused(left_open, ErrorCode::TokenNotFound);
    is_untouched(&fixture);

    // It has neither label nor serial number before.
    let server = start("pkcs11:token=new;serial=4711;model=SoftHSM%20v2");
    assert!(Manager::of(&server).init(token("new")).unwrap().created);
}

#[test]
fn a_usable_token_outside_of_the_scope_is_no_answer_to_a_wish_for_one() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).uri("pkcs11:token=mine").start();
    let uri = || {
        Some(
            format!("pkcs11:slot-id={}", fixture.token.slot)
                .as_str()
                .into(),
        )
    };
    let request = token("mine").uri(uri());
    refused(Manager::of(&server).init(request), ErrorCode::TokenNotFound);
    let so_pin = Some(SO_PIN.into());
    let request = pin("305419").uri(uri()).so_pin(so_pin).reset(true);
    refused(
        Manager::of(&server).change_pin(request),
        ErrorCode::TokenNotFound,
    );
    is_untouched(&fixture);
}
