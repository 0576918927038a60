//! `OpenKey` and `Sign`.

use p11_proto::message::{KeyType, OpenKey, OpenedKey, Sign, Signature};
use p11_proto::spki::PublicKey;
use p11_proto::{Identity, Pin, Request, Response, Scheme};
use serde_bytes::ByteBuf;

use crate::notation::{assert_golden, body, wire};

/// RFC 8032 section 7.1, test 1, as a `SubjectPublicKeyInfo`.
pub const SPKI: &str = "30 2a 30 05 06 03 2b 65 70 03 21 00 \
    d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// Its SHA-256.
pub const IDENTITY: &str = "06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9";

pub fn requests() -> Vec<(Request, String)> {
    vec![
        (
            Request::OpenKey(OpenKey::new("pkcs11:token=t")),
            "81 a7 'OpenKey' 81 a3 'uri' ae 'pkcs11:token=t'".to_owned(),
        ),
        (
            Request::OpenKey(
                OpenKey::new("pkcs11:token=t?pin-value=1234")
                    .pin(Pin::from("1234"))
                    .spki(ByteBuf::from([0x30, 0x00])),
            ),
            "81 a7 'OpenKey' 83 a3 'uri' bd 'pkcs11:token=t?pin-value=1234'
             a3 'pin' a4 '1234' a4 'spki' c4 02 30 00"
                .to_owned(),
        ),
        (
            Request::Sign(Sign::new(
                "pkcs11:token=t",
                0x0403,
                ByteBuf::from(b"abc"),
                identity(),
            )),
            format!(
                "81 a4 'Sign' 84 a3 'uri' ae 'pkcs11:token=t' a6 'scheme' cd 04 03
                 a7 'message' c4 03 'abc' a8 'identity' c4 20 {IDENTITY}"
            ),
        ),
        (
            Request::Sign(
                Sign::new(
                    "pkcs11:token=t?pin-value=1234",
                    0x0807,
                    ByteBuf::new(),
                    identity(),
                )
                .pin(Pin::from("1234")),
            ),
            format!(
                "81 a4 'Sign' 85 a3 'uri' bd 'pkcs11:token=t?pin-value=1234' a3 'pin' a4 '1234'
                 a6 'scheme' cd 08 07 a7 'message' c4 00 a8 'identity' c4 20 {IDENTITY}"
            ),
        ),
    ]
}

pub fn responses() -> Vec<(Response, String)> {
    vec![
        (
            Response::Key(OpenedKey::new(
                "pkcs11:token=t;id=%01",
                &public(),
                [Scheme::Ed25519],
            )),
            format!(
                "81 a3 'Key' 86 a3 'uri' b5 'pkcs11:token=t;id=%01'
                 a8 'key_type' a7 'Ed25519' a4 'bits' cc ff a7 'schemes' 91 cd 08 07
                 a4 'spki' c4 2c {SPKI} a8 'identity' c4 20 {IDENTITY}"
            ),
        ),
        (
            Response::Key(OpenedKey::new("", &public(), []).note("two".to_owned())),
            format!(
                "81 a3 'Key' 87 a3 'uri' a0 a8 'key_type' a7 'Ed25519' a4 'bits' cc ff a7 'schemes' 90
                 a4 'spki' c4 2c {SPKI} a8 'identity' c4 20 {IDENTITY} a4 'note' a3 'two'"
            ),
        ),
        (
            Response::Signature(Signature::new(ByteBuf::from([0x30, 0x06]))),
            "81 a9 'Signature' 81 a9 'signature' c4 02 30 06".to_owned(),
        ),
    ]
}

pub fn public() -> PublicKey {
    PublicKey::from_spki(&wire(SPKI)).unwrap()
}

pub fn identity() -> Identity {
    let identity = public().identity();
    assert_eq!(identity.to_string(), IDENTITY);
    identity
}

#[test]
fn key_types() {
    for (key_type, name) in [
        (KeyType::Rsa, "a3 'RSA'"),
        (KeyType::Ec, "a2 'EC'"),
        (KeyType::Ed25519, "a7 'Ed25519'"),
        (KeyType::Unknown, "a7 'Unknown'"),
    ] {
        assert_golden(&Response::Key(key_of(key_type)), &bytes_of_key(name));
    }
}

#[test]
fn a_key_type_of_a_newer_peer_is_unknown() {
    assert_eq!(
        body::<Response>(&bytes_of_key("a6 'ML-DSA'")).unwrap(),
        Response::Key(key_of(KeyType::Unknown))
    );
}

fn key_of(key_type: KeyType) -> OpenedKey {
    let mut key = OpenedKey::new("", &public(), []);
    (key.key_type, key.bits, key.spki) = (key_type, 0, ByteBuf::new());
    key
}

fn bytes_of_key(key_type: &str) -> String {
    format!(
        "81 a3 'Key' 86 a3 'uri' a0 a8 'key_type' {key_type} a4 'bits' 00 a7 'schemes' 90
         a4 'spki' c4 00 a8 'identity' c4 20 {IDENTITY}"
    )
}
