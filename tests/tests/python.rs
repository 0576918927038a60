//! A client in Python, written from PROTOCOL.md alone, finds that the server does what the page says.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests, which fail by panicking"
)]

use std::path::Path;

use p11_tests::{
    keys::{Key, KeyKind, KeySpec},
    server::Server,
    softhsm::SoftHsm,
    tools::{python, run},
    verify::verifies,
};

const PIN: &str = "482915";
const URI: &str = "pkcs11:token=device;object=key";

/// Runs a script of tests/python against a server, and returns what it prints.
fn script(name: &str, arguments: &[&str], server: &Server) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let printed = run(python("msgpack")
        .arg("-B") // leaves no __pycache__ in the sources
        .arg(path.join("python").join(name))
        .arg(server.socket())
        .args(arguments));
    String::from_utf8(printed).unwrap()
}

/// Lets the script open and sign, and has every signature verified.
fn opens_and_signs(server: &Server, arguments: &[&str], key: &Key, schemes: usize) {
    let printed = script("protocol1.py", arguments, server);
    let mut lines = printed.lines();
    assert_eq!(bytes(lines.next().unwrap()), key.spki);
    let mut signatures = 0;
    for line in lines {
        let [scheme, message, signature] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not three words: {line}");
        };
        let scheme = scheme.parse().unwrap();
        assert!(
            verifies(&key.spki, scheme, &bytes(message), &bytes(signature)),
            "{line}"
        );
        signatures += 1;
    }
    assert_eq!(signatures, schemes);
}

fn a_key(kind: KeyKind) -> (SoftHsm, Key) {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, "771122");
    let key = hsm.generate(&token, &KeySpec::new(kind, "key", &[1]));
    (hsm, key)
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn a_python_client_opens_a_key_and_its_signatures_verify() {
    for (kind, schemes) in [(KeyKind::P256, 1), (KeyKind::Rsa2048, 6)] {
        let (hsm, key) = a_key(kind);
        let server = Server::builder().softhsm(&hsm).pin(PIN).start();
        opens_and_signs(&server, &[URI], &key, schemes);
    }
}

#[test]
fn a_python_client_logs_in_with_its_own_pin() {
    let (hsm, key) = a_key(KeyKind::P256);
    let server = Server::builder().softhsm(&hsm).start();
    opens_and_signs(&server, &[URI, PIN], &key, 1);
}

#[test]
fn a_python_client_finds_every_rule_of_the_page_kept() {
    let (hsm, _) = a_key(KeyKind::P256);
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();
    script("rules.py", &[URI], &server);
}
