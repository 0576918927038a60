//! Public keys made by OpenSSL (`data/make.sh`), and their normalised form.
#![cfg(test)]

use p11_proto::spki::{Certificate, Curve, Kind, PublicKey};
use p11_proto::{Error, Identity};

const RSA: &[u8] = include_bytes!("data/rsa.der");
const P256: &[u8] = include_bytes!("data/p256.der");
const P384: &[u8] = include_bytes!("data/p384.der");
const P521: &[u8] = include_bytes!("data/p521.der");
const ED25519: &[u8] = include_bytes!("data/ed25519.der");

const RSA_V1: &[u8] = include_bytes!("data/rsa-v1.crt");
const P256_V1: &[u8] = include_bytes!("data/p256-v1.crt");
const P256_V3: &[u8] = include_bytes!("data/p256-v3.crt");
const ED25519_V3: &[u8] = include_bytes!("data/ed25519-v3.crt");

const KEYS: [&[u8]; 5] = [RSA, P256, P384, P521, ED25519];
const CERTIFICATES: [&[u8]; 4] = [RSA_V1, P256_V1, P256_V3, ED25519_V3];

/// DER of the AlgorithmIdentifiers of RSA, with NULL parameters and without any.
const RSA_NULL: [u8; 15] = *b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const RSA_ABSENT: [u8; 13] = *b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";

#[test]
fn what_openssl_writes_is_normalised_already() {
    for spki in KEYS {
        assert_eq!(PublicKey::from_spki(spki).unwrap().spki(), spki);
    }
}

#[test]
fn the_identity_is_what_sha256sum_prints() {
    for (spki, expected) in [
        (
            RSA,
            "c30b9f2e65fd8ba8f96b994b3bd311d2d766c7eba1f746b912bc333807870d18",
        ),
        (
            P256,
            "3dbdebfbc6f1dd2c0e81aa624d1a896824d973608320e41f3b488047acaba371",
        ),
        (
            P384,
            "dc6553a5060c4cc755747f7c206b03e4c556a62c9bee1821b10732b86662ca68",
        ),
        (
            P521,
            "e1387fa7feeed307e9331310180cc004d307dbdba9760634923916957d450d9e",
        ),
        (
            ED25519,
            "2667338c94a0b1109d2610d0113d362cf8c0fecf451c079ccc0b27b9881483f1",
        ),
    ] {
        let identity = Identity::of(spki).unwrap();
        assert_eq!(identity.to_string(), expected);
        assert_eq!(format!("{identity:?}"), expected);
    }
}

#[test]
fn the_kind_tells_type_and_size() {
    for (spki, expected) in [
        (RSA, Kind::Rsa { bits: 2048 }),
        (P256, Kind::Ec(Curve::P256)),
        (P384, Kind::Ec(Curve::P384)),
        (P521, Kind::Ec(Curve::P521)),
        (ED25519, Kind::Ed25519),
    ] {
        assert_eq!(PublicKey::from_spki(spki).unwrap().kind(), expected);
    }
}

#[test]
fn rsa_without_null_parameters_is_the_same_key() {
    let without = rsa_without_null();
    assert_ne!(without, RSA);
    let key = PublicKey::from_spki(&without).unwrap();
    assert_eq!(key.spki(), RSA);
    assert_eq!(key.identity(), Identity::of(RSA).unwrap());
}

#[test]
fn the_parts_that_a_token_holds_give_the_same_key() {
    let rsa = PublicKey::from_spki(RSA).unwrap();
    // Tokens pad integers with zeros or not, as they like.
    let (modulus, exponent) = rsa_parts(rsa.key());
    for padding in [&[][..], &[0], &[0, 0, 0]] {
        let modulus = [padding, modulus].concat();
        let exponent = [padding, exponent].concat();
        assert_eq!(PublicKey::rsa(&modulus, &exponent).unwrap(), rsa);
    }
    for (curve, spki) in [
        (Curve::P256, P256),
        (Curve::P384, P384),
        (Curve::P521, P521),
    ] {
        let key = PublicKey::from_spki(spki).unwrap();
        assert_eq!(key.key().len(), 1 + 2 * curve.bytes());
        assert_eq!(PublicKey::ec(curve, key.key()).unwrap(), key);
    }
    let ed25519 = PublicKey::from_spki(ED25519).unwrap();
    assert_eq!(PublicKey::ed25519(ed25519.key()).unwrap(), ed25519);
}

#[test]
fn parts_that_make_no_key_are_refused() {
    let (modulus, exponent) = ([0xc1; 256], [1, 0, 1]);
    assert!(PublicKey::rsa(&modulus, &exponent).is_ok());
    for (modulus, exponent) in [
        (&[][..], &exponent[..]),
        (&[0, 0], &exponent),
        (&modulus, &[]),
        (&modulus, &[0]),
    ] {
        assert!(
            PublicKey::rsa(modulus, exponent).is_err(),
            "{modulus:?} {exponent:?}"
        );
    }
    let point = PublicKey::from_spki(P256).unwrap().key().to_vec();
    for (curve, point) in [
        (Curve::P384, &point[..]),
        (Curve::P256, &point[..64]),
        (Curve::P256, &point[1..]),
        (Curve::P256, &[]),
    ] {
        assert!(
            PublicKey::ec(curve, point).is_err(),
            "{curve:?} {} bytes",
            point.len()
        );
    }
    assert!(PublicKey::ed25519(&[1; 31]).is_err());
    assert!(PublicKey::ed25519(&[]).is_err());
}

#[test]
fn nothing_is_guessed_of_a_key_of_another_kind() {
    for (spki, reason) in [
        (
            &include_bytes!("data/p256-compressed.der")[..],
            "compressed",
        ),
        (include_bytes!("data/p256-explicit.der"), "names no curve"),
        (
            include_bytes!("data/secp256k1.der"),
            "none of P-256, P-384 and P-521",
        ),
        (
            include_bytes!("data/ed448.der"),
            "neither RSA, EC nor Ed25519",
        ),
        (
            include_bytes!("data/rsa-pss.der"),
            "neither RSA, EC nor Ed25519",
        ),
        (
            PublicKey::from_spki(P256).unwrap().key(),
            "no DER SubjectPublicKeyInfo",
        ),
        (P256_V3, "no DER SubjectPublicKeyInfo"),
    ] {
        let Err(Error::PublicKey(message)) = PublicKey::from_spki(spki) else {
            panic!("accepted where it should say {reason:?}");
        };
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn certificates_of_every_version_tell_their_key() {
    for (certificate, spki) in [
        (RSA_V1, RSA),
        (P256_V1, P256),
        (P256_V3, P256),
        (ED25519_V3, ED25519),
    ] {
        assert_eq!(PublicKey::of_certificate(certificate).unwrap().spki(), spki);
    }
}

#[test]
fn certificates_tell_issuer_and_subject() {
    for (certificate, name) in [(RSA_V1, "rsa"), (P256_V1, "p256"), (P256_V3, "p256")] {
        let parts = Certificate::parse(certificate).unwrap();
        assert!(
            parts.subject.ends_with(name.as_bytes()),
            "{:x?}",
            parts.subject
        );
        assert_eq!(parts.issuer, parts.subject, "it is self-signed");
    }
}

#[test]
fn what_is_no_certificate_is_refused() {
    for der in [
        &[][..],
        b"-----BEGIN CERTIFICATE-----",
        RSA,
        &[0x30, 0x00],
        &[0x30, 0x80],
    ] {
        let result = PublicKey::of_certificate(der);
        assert!(
            matches!(result, Err(Error::PublicKey(_))),
            "{der:x?}: {result:?}"
        );
    }
    let with_more = [P256_V3, b"\0"].concat();
    assert!(PublicKey::of_certificate(&with_more).is_err());
}

/// Garbage is refused or means some key; it never panics, and never yields a key that does not
/// read back as itself.
#[test]
fn damaged_keys_and_certificates_do_no_harm() {
    for der in KEYS.into_iter().chain(CERTIFICATES) {
        for end in 0..der.len() {
            assert!(PublicKey::from_spki(&der[..end]).is_err());
            assert!(PublicKey::of_certificate(&der[..end]).is_err());
        }
        for place in 0..der.len() {
            for mask in [0x01, 0x7f, 0x80, 0xff] {
                let mut damaged = der.to_vec();
                damaged[place] ^= mask;
                for key in [
                    PublicKey::from_spki(&damaged),
                    PublicKey::of_certificate(&damaged),
                ] {
                    let Ok(key) = key else { continue };
                    assert_eq!(PublicKey::from_spki(key.spki()).unwrap(), key);
                }
            }
        }
    }
}

/// The RSA key's `SubjectPublicKeyInfo` with absent parameters, as some software writes it.
fn rsa_without_null() -> Vec<u8> {
    let rest = RSA[4..].strip_prefix(&RSA_NULL).unwrap();
    let length = u16::try_from(RSA_ABSENT.len() + rest.len()).unwrap();
    [&[0x30, 0x82], &length.to_be_bytes()[..], &RSA_ABSENT, rest].concat()
}

/// Modulus and exponent of the DER `RSAPublicKey` of a 2048-bit key with exponent 65537.
fn rsa_parts(key: &[u8]) -> (&[u8], &[u8]) {
    let modulus = key
        .strip_prefix(b"\x30\x82\x01\x0a\x02\x82\x01\x01\x00")
        .unwrap();
    let exponent = modulus[256..].strip_prefix(b"\x02\x03").unwrap();
    (&modulus[..256], exponent)
}
