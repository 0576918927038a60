//! Keys in a real SoftHSM2 token sign through the socket, and ring or openssl, who know nothing
//! of this project, find every signature good.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which fail by panicking"
)]

use p11_client::{Client, Config, SigningKey};
use p11_tests::{
    keys::{Key, KeyKind, KeySpec},
    server::Server,
    softhsm::{SoftHsm, Token},
    verify::verifies,
};
use rustls::{SignatureAlgorithm, SignatureScheme as S, sign::SigningKey as _};

const PIN: &str = "482915";

/// A token with a key in it and a server that signs with it.
struct Setup {
    hsm: SoftHsm,
    token: Token,
    server: Server,
}

fn setup(kind: KeyKind) -> (Setup, Key) {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, "771122");
    let key = hsm.generate(&token, &KeySpec::new(kind, "key", &[1]));
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();
    (Setup { hsm, token, server }, key)
}

impl Setup {
    fn open(&self, uri: &str) -> SigningKey {
        let client = Client::new(Config::new(self.server.socket()));
        SigningKey::open(&client, uri, None, None).unwrap()
    }
}

fn sign(key: &SigningKey, scheme: S, message: &[u8]) -> Vec<u8> {
    let signer = key.choose_scheme(&[scheme]).unwrap();
    assert_eq!(signer.scheme(), scheme);
    signer.sign(message).unwrap()
}

/// Opens a new key of this kind and holds all that it says and signs against the token's own word.
fn check(kind: KeyKind, algorithm: SignatureAlgorithm, schemes: &[S]) {
    let (setup, expected) = setup(kind);
    let key = setup.open("pkcs11:token=device;object=key");
    assert_eq!(key.public_key().unwrap().as_ref(), expected.spki);
    assert_eq!(key.algorithm(), algorithm);
    assert_eq!(key.schemes(), schemes);
    for scheme in schemes {
        for message in [&b""[..], b"a message", &[0xa5; 100_000]] {
            let signature = sign(&key, *scheme, message);
            assert!(
                verifies(&expected.spki, u16::from(*scheme), message, &signature),
                "{scheme:?}, {} bytes",
                message.len()
            );
        }
    }
}

const RSA_SCHEMES: &[S] = &[
    S::RSA_PSS_SHA256,
    S::RSA_PSS_SHA384,
    S::RSA_PSS_SHA512,
    S::RSA_PKCS1_SHA256,
    S::RSA_PKCS1_SHA384,
    S::RSA_PKCS1_SHA512,
];

#[test]
fn p256() {
    check(
        KeyKind::P256,
        SignatureAlgorithm::ECDSA,
        &[S::ECDSA_NISTP256_SHA256],
    );
}

#[test]
fn p384() {
    check(
        KeyKind::P384,
        SignatureAlgorithm::ECDSA,
        &[S::ECDSA_NISTP384_SHA384],
    );
}

#[test]
fn p521() {
    check(
        KeyKind::P521,
        SignatureAlgorithm::ECDSA,
        &[S::ECDSA_NISTP521_SHA512],
    );
}

#[test]
fn rsa_2048() {
    check(KeyKind::Rsa2048, SignatureAlgorithm::RSA, RSA_SCHEMES);
}

#[test]
fn rsa_3072() {
    check(KeyKind::Rsa3072, SignatureAlgorithm::RSA, RSA_SCHEMES);
}

#[test]
fn ed25519() {
    check(KeyKind::Ed25519, SignatureAlgorithm::ED25519, &[S::ED25519]);
}

#[test]
fn ecdsa_signatures_are_der_whatever_the_size_of_their_numbers() {
    // About one in 128 has a leading zero to drop or to add in r or s.
    let (setup, expected) = setup(KeyKind::P256);
    let key = setup.open("pkcs11:object=key");
    for number in 0..300_u32 {
        let message = number.to_be_bytes();
        let signature = sign(&key, S::ECDSA_NISTP256_SHA256, &message);
        assert!(verifies(&expected.spki, 0x0403, &message, &signature));
    }
}

#[test]
fn a_key_that_was_made_elsewhere_and_imported_signs_too() {
    let (setup, _) = setup(KeyKind::P256);
    // The token is known to the server already; this key is new to it.
    let spec = KeySpec::new(KeyKind::Rsa2048, "imported", &[0xfe]);
    let (expected, _) = setup.hsm.import(&setup.token, &spec);
    let key = setup.open("pkcs11:token=device;id=%FE");
    let signature = sign(&key, S::RSA_PSS_SHA256, b"a message");
    assert!(verifies(&expected.spki, 0x0804, b"a message", &signature));
}

#[test]
fn the_pin_of_a_request_logs_in_where_the_server_has_another() {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, "771122");
    hsm.generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
    let server = Server::builder().softhsm(&hsm).pin("0000000").start();
    let client = Client::new(Config::new(server.socket()));
    let uri = "pkcs11:object=key";
    let with_pin = SigningKey::open(&client, uri, Some(PIN.into()), None).unwrap();
    sign(&with_pin, S::ECDSA_NISTP256_SHA256, b"a message");
    let uri = format!("{uri}?pin-value={PIN}");
    let with_uri = SigningKey::open(&client, &uri, None, None).unwrap();
    sign(&with_uri, S::ECDSA_NISTP256_SHA256, b"a message");
}

#[test]
fn a_key_signs_on_after_the_server_was_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, "771122");
    hsm.generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
    let start = || {
        Server::builder()
            .softhsm(&hsm)
            .pin(PIN)
            .args(["--socket-path".as_ref(), socket.as_os_str()])
            .expect_socket(&socket)
            .start()
    };
    let server = start();
    let client = Client::new(Config::new(&socket));
    let key = SigningKey::open(&client, "pkcs11:object=key", None, None).unwrap();
    sign(&key, S::ECDSA_NISTP256_SHA256, b"before");
    drop(server);
    let _server = start();
    sign(&key, S::ECDSA_NISTP256_SHA256, b"after");
}

#[test]
fn neither_pins_nor_messages_are_logged_at_the_most_talkative_level() {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, "771122");
    hsm.generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
    let server = Server::builder()
        .softhsm(&hsm)
        .args(["--log-level", "trace"])
        .start();
    for message in [
        "the secret transcript",
        "dGhlIHNlY3JldCB0",
        "74686520736563726574",
    ] {
        server.secrets().add(message);
    }
    let client = Client::new(Config::new(server.socket()));
    let uri = format!("pkcs11:object=key?pin-value={PIN}");
    let key = SigningKey::open(&client, &uri, None, None).unwrap();
    sign(&key, S::ECDSA_NISTP256_SHA256, b"the secret transcript");
    let none = SigningKey::open(&client, "pkcs11:object=none", Some(PIN.into()), None);
    assert!(!format!("{:?}", none.unwrap_err()).contains(PIN));
    // Dropping the server looks for all of these in its log.
}
