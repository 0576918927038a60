//! Each change has its line in the log: who, what, on which token or key, and how it ended.

use p11_client::{
    ErrorCode,
    message::{ChangePin, InitToken},
};
use p11_fault_module::{Function::C_DestroyObject, cryptoki_sys::CKR_ACTION_PROHIBITED, on};
use p11_tests::{
    client::{P256, refused},
    fixture::{Fixture, KEY},
    keys::KeyKind,
    server::Server,
};

/// The line of an operation that happened once, with these parts.
fn is_audited(server: &Server, operation: &str, parts: &[&str]) {
    let line = server.wait_for_log(&format!("operation={operation} "));
    for part in ["audit", "uid=", "gid=", "pid=", "duration_us="]
        .iter()
        .chain(parts)
    {
        assert!(line.contains(part), "no {part:?} in: {line}");
    }
}

#[test]
fn changes_are_audited_with_what_they_were_about() {
    let fixture = Fixture::new(KeyKind::P256);
    let certificate = fixture.certificate();
    let server = fixture.start();
    server.secrets().add("305419");
    let client = server.client();

    let uri = client.import_certificate(KEY, &certificate).unwrap();
    is_audited(&server, "ImportCertificate", &[&uri, "outcome=ok"]);
    let made = client.create_key("pkcs11:", P256, "made", None).unwrap();
    is_audited(&server, "CreateKey", &[&made.uri, "outcome=ok"]);
    let changed = client.change_pin(ChangePin::new("305419")).unwrap();
    is_audited(&server, "ChangePin", &[&changed.uri, "outcome=ok"]);
    let ready = client.init_token(InitToken::new("new")).unwrap();
    is_audited(&server, "InitToken", &[&ready.uri, "outcome=ok"]);

    fixture
        .faults
        .set([on(C_DestroyObject).returns(CKR_ACTION_PROHIBITED)]);
    refused(client.delete_key(KEY), ErrorCode::Module);
    let ended = "outcome=Module ckr=CKR_ACTION_PROHIBITED";
    is_audited(&server, "DeleteKey", &["object=key", ended]);
}

#[test]
fn listings_are_audited_too() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let client = server.client();
    client.list_tokens();
    is_audited(&server, "ListTokens", &["outcome=ok"]);
    client.list_keys("pkcs11:token=device").unwrap();
    is_audited(
        &server,
        "ListKeys",
        &["uri=pkcs11:token=device ", "outcome=ok"],
    );
    let public = client.get_public_key(KEY).unwrap();
    is_audited(&server, "GetPublicKey", &[&public.uri, "outcome=ok"]);
    refused(
        client.get_certificates("pkcs11:token=none"),
        ErrorCode::TokenNotFound,
    );
    is_audited(
        &server,
        "GetCertificates",
        &["token=none", "outcome=TokenNotFound"],
    );
}
