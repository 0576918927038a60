//! Each change has its line in the log: who, what, on which token or key, and how it ended.

use p11_client::ErrorCode;
use p11_fault_module::{Function::C_DestroyObject, cryptoki_sys::CKR_ACTION_PROHIBITED, on};
use p11_tests::{
    keys::KeyKind,
    server::Server,
    stage::{KEY, Stage, refused},
};

use crate::{
    admin::{Admin, P256, pin, token},
    certificates::certificate_for,
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
    let stage = Stage::new(KeyKind::P256);
    let certificate = certificate_for(&stage);
    let server = stage.start();
    server.secrets().add("305419");
    let admin = Admin::of(&server);

    let uri = admin.import(KEY, &certificate).unwrap();
    is_audited(&server, "ImportCertificate", &[&uri, "outcome=ok"]);
    let made = admin.create("pkcs11:", P256, "made", None).unwrap();
    is_audited(&server, "CreateKey", &[&made.uri, "outcome=ok"]);
    let changed = admin.change_pin(pin("305419")).unwrap();
    is_audited(&server, "ChangePin", &[&changed.uri, "outcome=ok"]);
    let ready = admin.init(token("new")).unwrap();
    is_audited(&server, "InitToken", &[&ready.uri, "outcome=ok"]);

    stage
        .faults
        .set([on(C_DestroyObject).returns(CKR_ACTION_PROHIBITED)]);
    refused(admin.delete(KEY), ErrorCode::Module);
    let ended = "outcome=Module ckr=CKR_ACTION_PROHIBITED";
    is_audited(&server, "DeleteKey", &["object=key", ended]);
}

#[test]
fn listings_are_audited_too() {
    let stage = Stage::new(KeyKind::P256);
    let server = stage.start();
    let admin = Admin::of(&server);
    admin.tokens();
    is_audited(&server, "ListTokens", &["outcome=ok"]);
    admin.keys("pkcs11:token=device").unwrap();
    is_audited(
        &server,
        "ListKeys",
        &["uri=pkcs11:token=device ", "outcome=ok"],
    );
    let public = admin.public_key(KEY).unwrap();
    is_audited(&server, "GetPublicKey", &[&public.uri, "outcome=ok"]);
    refused(
        admin.certificates("pkcs11:token=none"),
        ErrorCode::TokenNotFound,
    );
    is_audited(
        &server,
        "GetCertificates",
        &["token=none", "outcome=TokenNotFound"],
    );
}
