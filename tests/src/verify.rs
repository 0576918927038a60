//! Verifies signatures of TLS schemes with `ring` or openssl, without any code of ours.

use std::fs;

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use spki::{SubjectPublicKeyInfoRef, der::Decode};

use crate::tools::command;

/// ecdsa_secp521r1_sha512, the one scheme that ring does not know.
const ECDSA_P521_SHA512: u16 = 0x0603;

/// Whether the signature is good. `scheme` is a TLS SignatureScheme number (RFC 8446, section
/// 4.2.3) and the key a SubjectPublicKeyInfo in DER.
pub fn verifies(spki: &[u8], scheme: u16, message: &[u8], signature: &[u8]) -> bool {
    match ring_algorithm(scheme) {
        Some(algorithm) => {
            let info = SubjectPublicKeyInfoRef::from_der(spki).expect("a SubjectPublicKeyInfo");
            let key = UnparsedPublicKey::new(algorithm, info.subject_public_key.raw_bytes());
            key.verify(message, signature).is_ok()
                || openssl_rsa(scheme)
                    .is_some_and(|how| openssl_verifies(spki, how, message, signature))
        }
        None if scheme == ECDSA_P521_SHA512 => {
            openssl_verifies(spki, ("-sha512", &[]), message, signature)
        }
        None => panic!("no TLS signature scheme that we know: {scheme:#06x}"),
    }
}

fn ring_algorithm(scheme: u16) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match scheme {
        0x0401 => &signature::RSA_PKCS1_2048_8192_SHA256,
        0x0501 => &signature::RSA_PKCS1_2048_8192_SHA384,
        0x0601 => &signature::RSA_PKCS1_2048_8192_SHA512,
        0x0403 => &signature::ECDSA_P256_SHA256_ASN1,
        0x0503 => &signature::ECDSA_P384_SHA384_ASN1,
        0x0804 => &signature::RSA_PSS_2048_8192_SHA256,
        0x0805 => &signature::RSA_PSS_2048_8192_SHA384,
        0x0806 => &signature::RSA_PSS_2048_8192_SHA512,
        0x0807 => &signature::ED25519,
        _ => return None,
    })
}

/// What openssl is told of a scheme with RSA, since ring knows no keys below 2048 bits.
fn openssl_rsa(scheme: u16) -> Option<(&'static str, &'static [&'static str])> {
    const PSS: &[&str] = &[
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:digest",
    ];
    Some(match scheme {
        0x0401 => ("-sha256", &[]),
        0x0501 => ("-sha384", &[]),
        0x0601 => ("-sha512", &[]),
        0x0804 => ("-sha256", PSS),
        0x0805 => ("-sha384", PSS),
        0x0806 => ("-sha512", PSS),
        _ => return None,
    })
}

fn openssl_verifies(
    spki: &[u8],
    (hash, options): (&str, &[&str]),
    message: &[u8],
    signature: &[u8],
) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let verdict = command("openssl")
        .args(["dgst", hash, "-keyform", "DER"])
        .args(options)
        .arg("-verify")
        .arg(file("key", spki))
        .arg("-signature")
        .arg(file("signature", signature))
        .arg(file("message", message))
        .output()
        .expect("openssl runs");
    match verdict.stdout.as_slice() {
        b"Verified OK\n" => true,
        b"Verification failure\n" | b"Verification Failure\n" => false,
        _ => panic!("openssl has no verdict: {verdict:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keys::{KeyKind, KeySpec},
        softhsm::SoftHsm,
        tools::run,
    };

    /// Signs with openssl and a key that it made, which is also in a token.
    fn check(kind: KeyKind, scheme: u16, options: &[&str]) {
        let hsm = SoftHsm::new();
        let token = hsm.init_token("verify", "482915", "771122");
        let (key, private) = hsm.import(&token, &KeySpec::new(kind, "a key", &[1]));
        let message = tempfile::NamedTempFile::new().unwrap();
        fs::write(message.path(), "a message").unwrap();
        let signature = run(command("openssl")
            .args(["pkeyutl", "-sign", "-rawin"])
            .args(options)
            .arg("-inkey")
            .arg(private)
            .arg("-in")
            .arg(message.path()));
        assert!(verifies(&key.spki, scheme, b"a message", &signature));
        assert!(!verifies(&key.spki, scheme, b"another message", &signature));
    }

    #[test]
    fn signatures_of_every_kind_are_told_from_false_ones() {
        check(KeyKind::P256, 0x0403, &["-digest", "sha256"]);
        check(KeyKind::P521, 0x0603, &["-digest", "sha512"]);
        check(KeyKind::Ed25519, 0x0807, &[]);
        check(KeyKind::Rsa2048, 0x0601, &["-digest", "sha512"]);
        let pss = ["-digest", "sha256", "-pkeyopt", "rsa_padding_mode:pss"];
        check(
            KeyKind::Rsa2048,
            0x0804,
            &[&pss[..], &["-pkeyopt", "rsa_pss_saltlen:digest"]].concat(),
        );
    }
}
