//! A request that would change something outside of the server's own URI is refused, not redirected.

use p11_client::{
    ErrorCode,
    message::{ChangePin, InitToken},
};
use p11_fault_module::Function::{
    C_CreateObject, C_DestroyObject, C_GenerateKeyPair, C_InitPIN, C_InitToken, C_Login, C_SetPIN,
};
use p11_tests::{
    client::{P256, refused},
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    text::assert_contains,
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
    let client = server.client();
    let second = "pkcs11:token=second;object=key";
    let uri = Some(second.into());
    for outcome in [
        client.create_key(second, P256, "made", None).map(drop),
        client
            .import_certificate(second, &fixture.certificate())
            .map(drop),
        client.delete_key(second).map(drop),
        client
            .change_pin(ChangePin::new("305419").uri(uri))
            .map(drop),
    ] {
        let told = refused(outcome, ErrorCode::OutOfScope);
        assert_contains(
            &told.message,
            ["token=second", "pkcs11:token=device: token differs"],
        );
    }
    is_untouched(&fixture);
}

#[test]
fn another_object_is_out_of_scope_too() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).uri(KEY).start();
    let client = server.client();
    refused(
        client.delete_key("pkcs11:object=other"),
        ErrorCode::OutOfScope,
    );
    // A new key would be one that nobody could use here.
    let told = refused(
        client.create_key("pkcs11:token=device", P256, "other", None),
        ErrorCode::OutOfScope,
    );
    assert!(told.message.contains("object differs"), "{told}");
    is_untouched(&fixture);
    client.create_key("pkcs11:", P256, "key", None).unwrap();
}

#[test]
fn what_a_request_leaves_open_the_scope_decides() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = fixture.server().pin(PIN).uri("pkcs11:token=device").start();
    let client = server.client();
    let made = client.create_key("pkcs11:", P256, "made", None).unwrap();
    assert!(made.uri.contains("token=device"), "{}", made.uri);
    assert_eq!(client.delete_key("pkcs11:object=made").unwrap().len(), 2);
    let changed = client.change_pin(ChangePin::new("305419")).unwrap();
    assert!(changed.uri.contains("token=device"), "{changed:?}");
}

#[test]
fn either_type_of_key_lies_in_a_scope_of_the_other() {
    let fixture = Fixture::new(KeyKind::P256);
    let scope = "pkcs11:token=device;object=key;type=private";
    let server = fixture.server().pin(PIN).uri(scope).start();
    let client = server.client();
    let listed = client.list_keys("pkcs11:token=device").unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(
        client
            .delete_key("pkcs11:object=key;type=public")
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
        server.client().init_token(InitToken::new("new").uri(uri)),
        ErrorCode::OutOfScope,
    );
    assert!(told.message.contains("model differs"), "{told}");
    let left_open = server.client().init_token(InitToken::new("new"));
    refused(left_open, ErrorCode::TokenNotFound);
    is_untouched(&fixture);

    // It has neither label nor serial number before. Without the serial number of the scope it gets no PIN of the server.
    let server = start("pkcs11:token=new;serial=4711;model=SoftHSM%20v2");
    let new = InitToken::new("new");
    refused(
        server.client().init_token(new.clone()),
        ErrorCode::PinRequired,
    );
    let made = server.client().init_token(new.pin(Some("305419".into())));
    assert!(made.unwrap().created);
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
    let request = InitToken::new("mine").uri(uri());
    refused(
        server.client().init_token(request),
        ErrorCode::TokenNotFound,
    );
    let so_pin = Some(SO_PIN.into());
    let request = ChangePin::new("305419")
        .uri(uri())
        .so_pin(so_pin)
        .reset(true);
    refused(
        server.client().change_pin(request),
        ErrorCode::TokenNotFound,
    );
    is_untouched(&fixture);
}
