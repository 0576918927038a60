//! `CryptokiConfig`: a program that is configured by a tedge.toml finds its key, by the socket and by the module.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use p11_client::{CryptokiConfig, Resolver, Scheme};
use p11_fault_module::{Faults, Function::*};
use p11_tests::{
    fixture::{Fixture, PIN},
    keys::KeyKind,
    pki::{Pki, Version},
    program,
    verify::verifies,
};

/// A folder with a tedge.toml that says how the key is reached, and the certificate where thin-edge has it.
fn write(folder: &Path, fixture: &Fixture, mode: &str, cryptoki: &str, key_pin: &str) {
    let pki = Pki::new();
    let certificate = pki.client("device", &fixture.key.spki, Version::V3);
    let place = folder.join("device-certs");
    fs::create_dir(&place).unwrap();
    fs::copy(certificate, place.join("tedge-certificate.pem")).unwrap();
    let toml = format!(
        "[device]\nkey_uri = \"pkcs11:token=missing\"\n{key_pin}\n[device.cryptoki]\nmode = \"{mode}\"\n{cryptoki}\n\
         [c8y.device]\nkey_uri = \"pkcs11:token=device;object=key\"\n"
    );
    fs::write(folder.join("tedge.toml"), toml).unwrap();
}

/// The cloud's key signs, and is that of its certificate; the device's is not there.
fn finds_the_key_of_the_cloud(folder: &Path) {
    let config = CryptokiConfig::load(folder, Some("c8y")).unwrap();
    let (key, chain) = config.open().unwrap().unwrap();
    let signature = key.sign(Scheme::EcdsaP256Sha256, b"message").unwrap();
    let (spki, scheme) = (
        key.public_key_info().spki(),
        Scheme::EcdsaP256Sha256.number(),
    );
    assert!(verifies(spki, scheme, b"message", &signature));
    let resolver = config.resolver().unwrap().unwrap();
    assert_eq!(resolver.check().unwrap().identity(), key.identity());
    Resolver::new(chain, key).unwrap();

    let config = CryptokiConfig::load(folder, None).unwrap();
    assert!(config.open().unwrap_err().is_not_found());
    let resolver = config.resolver().unwrap().unwrap();
    assert!(resolver.check().unwrap_err().is_not_found());
}

#[test]
fn by_the_socket_and_the_servers_pin_is_not_sent() {
    let (fixture, server) = Fixture::started();
    let folder = tempfile::tempdir().unwrap();
    let socket = server.socket().display();
    // A PIN that differs from the server's would be refused, were it sent.
    let cryptoki = format!("pin = \"another-pin\"\nsocket_path = \"{socket}\"");
    write(folder.path(), &fixture, "socket", &cryptoki, "");
    finds_the_key_of_the_cloud(folder.path());

    let folder = tempfile::tempdir().unwrap();
    let key_pin = "key_pin = \"another-pin\"";
    write(folder.path(), &fixture, "socket", &cryptoki, key_pin);
    let config = CryptokiConfig::load(folder.path(), Some("c8y")).unwrap();
    assert!(config.open().unwrap_err().is_pin());
    server.secrets().add("another-pin");
}

#[test]
fn by_the_module() {
    let fixture = Fixture::new(KeyKind::P256);
    for (name, pin) in [
        ("config", format!("pin = \"{PIN}\"")),
        ("without", String::new()),
        ("empty", "pin = \"\"".to_owned()),
    ] {
        let folder = beside_the_tokens(&fixture.hsm.envs()[0].1, name);
        fs::create_dir(&folder).unwrap();
        let module = Faults::module_path();
        let cryptoki = format!("{pin}\nmodule_path = \"{}\"", module.display());
        write(&folder, &fixture, "module", &cryptoki, "");
    }
    program::run(&fixture, "program_with_a_module");
}

#[test]
fn a_refused_pin_is_not_sent_again_by_the_next_process() {
    for variable in ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"] {
        let fixture = Fixture::new(KeyKind::P256);
        let folder = beside_the_tokens(&fixture.hsm.envs()[0].1, "wrong");
        fs::create_dir(&folder).unwrap();
        let module = Faults::module_path();
        let cryptoki = format!(
            "pin = \"not-the-pin\"\nmodule_path = \"{}\"",
            module.display()
        );
        write(&folder, &fixture, "module", &cryptoki, "");
        let runtime = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let variables = [(variable, runtime.path())];
            program::run_with(&fixture, "program_with_a_wrong_pin", &variables);
        }
        assert_eq!(fixture.faults.count(C_Login), 1, "{variable}");
    }
}

#[test]
#[ignore = "run by another test"]
fn program_with_a_wrong_pin() {
    let tokens = PathBuf::from(std::env::var_os("SOFTHSM2_CONF").unwrap());
    let folder = beside_the_tokens(&tokens, "wrong");
    let config = CryptokiConfig::load(folder, Some("c8y")).unwrap();
    assert!(config.open().unwrap_err().is_pin());
}

fn beside_the_tokens(softhsm2_conf: &Path, name: &str) -> PathBuf {
    softhsm2_conf.with_file_name(name)
}

#[test]
#[ignore = "run by another test"]
fn program_with_a_module() {
    let tokens = PathBuf::from(std::env::var_os("SOFTHSM2_CONF").unwrap());
    let faults = program::faults();
    // Where no PIN was set the conventional one is tried, once, however often the program comes back; where it was set to
    // nothing, none.
    for (name, code, logins) in [("empty", "PinRequired", 0), ("without", "PinIncorrect", 1)] {
        let folder = beside_the_tokens(&tokens, name);
        let config = CryptokiConfig::load(folder, Some("c8y")).unwrap();
        let before = faults.count(C_Login);
        assert_eq!(config.open().unwrap_err().code(), code);
        for _ in 0..3 {
            assert!(config.open().unwrap_err().is_pin());
        }
        assert_eq!(faults.count(C_Login) - before, logins, "{name}");
    }
    finds_the_key_of_the_cloud(&beside_the_tokens(&tokens, "config"));
    // Each client of it has gone, and the module with the last.
    assert_eq!(faults.count(C_Finalize), faults.count(C_Initialize));
}

#[test]
fn off_is_no_client_and_what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = CryptokiConfig::load(folder.path(), None).unwrap();
    assert!(config.client().unwrap().is_none());
    assert!(config.open().unwrap().is_none());
    let config = CryptokiConfig::from_toml("device.cryptoki.mode = \"module\"", None).unwrap();
    let error = config.client().unwrap_err().to_string();
    assert!(error.contains("module_path is not set"), "{error}");
    let error = CryptokiConfig::socket("/nowhere").open().unwrap_err();
    assert!(
        error.to_string().contains("cert_path is not set"),
        "{error}"
    );
}
