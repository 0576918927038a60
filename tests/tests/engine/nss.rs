//! What modules want at their initialisation: NSS's a text that says where its database is, others no arguments at all.

use std::fs;

use p11_client::ErrorCode;
use p11_fault_module::{
    Function::C_Initialize,
    cryptoki_sys::{CKR_ARGUMENTS_BAD, CKR_CANT_LOCK},
    on,
};
use p11_tests::{
    client::{P256, refused},
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    server::{Builder, Server},
    text::assert_contains,
    tools::{command, pkcs11_module, run},
};

fn server() -> Builder {
    let module = pkcs11_module("libsoftokn3.so");
    Server::builder().pin(PIN).module(&module)
}

#[test]
fn the_text_for_the_initialisation_comes_from_the_servers_uri() {
    let builder = server();
    let folder = builder.folder().display().to_string();
    fs::write(format!("{folder}/pin"), PIN).unwrap();
    run(command("certutil")
        .args(["-N", "-d", &format!("sql:{folder}")])
        .args(["-f", &format!("{folder}/pin")]));
    let text = format!("configdir%3D%27sql%3A{folder}%27%20certPrefix%3D%27%27");
    let server = builder
        .uri(&format!("pkcs11:?x-init-reserved={text}"))
        .start();
    let client = server.client();
    let token = "pkcs11:token=NSS%20Certificate%20DB";
    let made = client.create_key(token, P256, "key", None).unwrap();
    let key = client.open(&made.uri).unwrap();
    key.sign().unwrap();
    // It is told again when it is initialised again.
    server.sighup();
    key.sign().unwrap();
    client.delete_key(&made.uri).unwrap();
}

#[test]
fn without_it_the_module_is_not_available() {
    let server = server().start();
    let failure = server.client().open("pkcs11:");
    let failure = refused(failure, ErrorCode::ModuleUnavailable);
    assert_contains(
        &failure.message,
        [
            "C_Initialize returned CKR_ARGUMENTS_BAD",
            "set x-init-reserved in the configured URI",
        ],
    );
}

#[test]
fn a_module_that_takes_no_arguments_but_null_is_used_at_once() {
    for refusal in [CKR_ARGUMENTS_BAD, CKR_CANT_LOCK] {
        let fixture = Fixture::new(KeyKind::P256);
        // With the system's locks, and without.
        let refuses = || on(C_Initialize).next(2).returns(refusal);
        fixture.faults.set([refuses()]);
        let server = fixture.start();
        let key = server.client().open(KEY).unwrap();
        key.sign().unwrap();
        fixture.faults.set([refuses()]);
        server.sighup();
        key.sign().unwrap();
        assert_eq!(fixture.faults.count(C_Initialize), 2 * 3);
    }
}
