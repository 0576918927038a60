//! The same on a software TPM.

use std::fs;

use p11_tests::{
    fixture::{PIN, SO_PIN},
    pki::{Pki, Version},
    server::Server,
    text::assert_contains,
    tools::run,
    tpm::Tpm,
};

use super::{CommandLine, json, tedge_p11};

const NEW_PIN: &str = "305419";

#[test]
fn a_blank_tpm_becomes_a_token_with_a_certified_key() {
    let tpm = Tpm::new();
    let server = Server::builder()
        .module(&tpm.module())
        .envs(tpm.envs())
        .pin(PIN)
        .start();
    let ended = tedge_p11(&server, &["init", "--label", "device", "--server-pin"]);
    assert_eq!(ended.done(), "pkcs11:token=device");
    let ended = tedge_p11(&server, &["create-key", "device-key"]);
    assert_eq!(ended.done(), "pkcs11:token=device;object=device-key");
    let again = tedge_p11(&server, &["create-key", "device-key"]);
    again.says(&["There is a key \"device-key\" already (P-256); nothing was made."]);
    let (code, answer) = json(&server, &["sign", "--test", "device-key"]);
    assert_eq!((code, &answer["verified"]), (0, &true.into()));

    let seen = run(tpm
        .command("p11tool")
        .arg("--provider")
        .arg(tpm.module())
        .env("GNUTLS_PIN", PIN)
        .args([
            "--batch",
            "--login",
            "--list-all",
            "pkcs11:token=device;object=device-key;type=private",
        ]));
    assert_contains(String::from_utf8_lossy(&seen), ["CKA_SENSITIVE"]);

    let spki = server
        .client()
        .get_public_key("pkcs11:object=device-key")
        .unwrap()
        .spki;
    let pki = Pki::new();
    let certificate = pki.client("gw-0001", &spki, Version::V3);
    let ended = tedge_p11(
        &server,
        &["certificate", "import", certificate.to_str().unwrap()],
    );
    assert_eq!(
        ended.done(),
        "pkcs11:token=device;object=device-key;type=cert"
    );
    let ended = tedge_p11(&server, &["keys"]);
    assert_contains(
        ended.done(),
        ["device-key  P-256  signs  CN=gw-0001 until 20"],
    );
    tedge_p11(&server, &["certificate", "delete", "device-key"]).done();
    tedge_p11(&server, &["delete-key", "device-key", "--yes"]).done();
    let (_, answer) = json(&server, &["keys"]);
    assert_eq!(answer["keys"].as_array().unwrap().len(), 0);
}

#[test]
fn the_pin_of_a_tpm_is_changed_and_reset() {
    let tpm = Tpm::new();
    tpm.init_token("device", PIN, SO_PIN);
    let server = Server::builder()
        .module(&tpm.module())
        .envs(tpm.envs())
        .pin(PIN)
        .start();
    server.secrets().add_all(tpm.secrets());
    server.secrets().add(NEW_PIN);
    fs::write(server.folder().join("new"), NEW_PIN).unwrap();
    let change = ["change-pin", "--server-pin", "--new-pin-file", "new"];
    assert_eq!(tedge_p11(&server, &change).done(), "pkcs11:token=device");
    let reset = [
        "change-pin",
        "--reset",
        "--so-pin-env",
        "SO",
        "--new-pin-env",
        "NEW",
    ];
    let reset = CommandLine::new(&server, &reset)
        .env("SO", SO_PIN)
        .env("NEW", PIN)
        .run();
    assert_eq!(reset.done(), "pkcs11:token=device");
    tedge_p11(&server, &["create-key", "device-key"]).done();
    assert_eq!(tpm.lockout_counter(), 0);
}
