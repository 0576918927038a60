//! NSS's module, which wants a text at its initialisation: where its database is.

use std::fs;

use p11_client::ErrorCode;
use p11_tests::{
    client::{P256, refused},
    fixture::PIN,
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
        ["C_Initialize returned CKR_ARGUMENTS_BAD"],
    );
}
