//! Keys in a real SoftHSM2 token sign through the socket; ring or openssl verify every signature.

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

const RSA_SCHEMES: &[S] = &[
    S::RSA_PSS_SHA256,
    S::RSA_PSS_SHA384,
    S::RSA_PSS_SHA512,
    S::RSA_PKCS1_SHA256,
    S::RSA_PKCS1_SHA384,
    S::RSA_PKCS1_SHA512,
];

#[test]
fn a_key_of_each_kind_signs_messages_of_each_size_with_each_of_its_schemes() {
    use KeyKind::*;
    use SignatureAlgorithm::{ECDSA, ED25519, RSA};
    for (kind, algorithm, schemes) in [
        (P256, ECDSA, &[S::ECDSA_NISTP256_SHA256][..]),
        (P384, ECDSA, &[S::ECDSA_NISTP384_SHA384]),
        (P521, ECDSA, &[S::ECDSA_NISTP521_SHA512]),
        (Rsa2048, RSA, RSA_SCHEMES),
        (Rsa3072, RSA, RSA_SCHEMES),
        (Ed25519, ED25519, &[S::ED25519]),
    ] {
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
