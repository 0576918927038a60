//! The examples, each built with its own features alone, against a real token.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use p11_client::{Identity, Scheme};
use p11_tests::{
    binary::{example, static_example},
    keys::{Key, KeyKind, KeySpec},
    server::{Builder, Server},
    softhsm::SoftHsm,
    tools::{command, run},
    verify::verifies,
};

const PIN: &str = "open-sesame";

fn token(kind: KeyKind) -> (SoftHsm, Key) {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, "open-barley");
    let key = hsm.generate(&token, &KeySpec::new(kind, "device-key", &[1]));
    (hsm, key)
}

fn server(hsm: &SoftHsm) -> Builder {
    Server::builder().softhsm(hsm).pin(PIN)
}

fn text(command: &mut Command) -> String {
    String::from_utf8(run(command)).unwrap()
}

/// Has openssl verify a request that was printed, and tell what it says and the identity of its key.
fn verified(request: &str, folder: &Path) -> (String, Identity) {
    let file = folder.join("request.pem");
    fs::write(&file, request).unwrap();
    let openssl = |arguments: &[&str]| {
        let output = command("openssl")
            .args(["req", "-verify", "-in"])
            .arg(&file)
            .args(arguments)
            .output()
            .unwrap();
        let verdict = String::from_utf8(output.stderr).unwrap();
        assert!(verdict.contains("self-signature verify OK"), "{verdict}");
        String::from_utf8(output.stdout).unwrap()
    };
    let pem = openssl(&["-noout", "-pubkey"]);
    let public = folder.join("public.pem");
    fs::write(&public, pem).unwrap();
    let spki = run(command("openssl")
        .args(["pkey", "-pubin", "-outform", "DER", "-in"])
        .arg(&public));
    (openssl(&["-noout", "-text"]), Identity::of(&spki).unwrap())
}

#[test]
fn csr_prints_a_request_that_openssl_verifies() {
    let (hsm, key) = token(KeyKind::P256);
    let server = server(&hsm).start();
    let request = text(
        example("csr")
            .arg(server.socket())
            .args(["pkcs11:object=device-key", "CN=gw-0001,O=Maker"])
            .args(["DNS:gw-0001.local", "IP:192.0.2.1"]),
    );
    let (said, identity) = verified(&request, server.folder());
    assert_eq!(identity, Identity::of(&key.spki).unwrap());
    for text in [
        "Subject: O = Maker, CN = gw-0001",
        "DNS:gw-0001.local, IP Address:192.0.2.1",
        "TLS Web Client Authentication",
    ] {
        assert!(said.contains(text), "{text:?} is not in {said}");
    }
}

/// As in a container of one file: no libc, no resolver, no /dev, no /proc.
#[test]
fn csr_signs_as_a_static_program_where_there_is_nothing_but_the_socket() {
    let (hsm, key) = token(KeyKind::P256);
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("p11.sock");
    let server = server(&hsm)
        .args(["--socket-path".as_ref(), socket.as_os_str()])
        .expect_socket(&socket)
        .start();
    fs::copy(static_example("csr"), root.path().join("csr")).unwrap();
    let here: Vec<PathBuf> = fs::read_dir(root.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() != Some("lock".as_ref()))
        .collect();
    assert_eq!(here.len(), 2, "{here:?}");
    let request = text(command("chroot").arg(root.path()).env_clear().args([
        "/csr",
        "/p11.sock",
        "pkcs11:object=device-key",
        "CN=gw-0001",
    ]));
    let (_, identity) = verified(&request, server.folder());
    assert_eq!(identity, Identity::of(&key.spki).unwrap());
}

#[test]
fn list_tokens_names_tokens_and_what_is_in_them() {
    let (hsm, _) = token(KeyKind::Rsa2048);
    let server = server(&hsm).start();
    let said = text(example("list-tokens").arg(server.socket()));
    for text in [
        "token=device (SoftHSM project SoftHSM v2)\n",
        "  private RSA 2048: pkcs11:",
        "  public RSA 2048: pkcs11:",
        "object=device-key",
        "  blank: it has to be initialised\n",
    ] {
        assert!(said.contains(text), "{text:?} is not in {said}");
    }
}

#[test]
fn embed_module_signs_without_a_server() {
    let (hsm, key) = token(KeyKind::P384);
    let said = text(
        example("embed-module")
            .arg(hsm.module())
            .args(["pkcs11:object=device-key", "a message"])
            .envs(hsm.envs())
            .env("PIN", PIN),
    );
    let [uri, scheme, signature] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("three lines were due: {said}");
    };
    assert!(uri.contains("token=device"), "{said}");
    let known = Scheme::ALL.iter().find(|known| known.name() == scheme);
    let signature: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
        .collect();
    let number = known.unwrap().number();
    assert!(verifies(&key.spki, number, b"a message", &signature));
}
