//! Which scheme is signed with, and whether a signature is good, by ring, and by the crate p521 for the curve that ring has not.

use p11_client::Scheme;
use p521::ecdsa::signature::Verifier;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::der::Decode;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::exit::Refusal;

/// `None` where neither knows such keys: RSA below 2048 bits.
pub fn verifies(
    spki: &[u8],
    bits: u32,
    scheme: Scheme,
    message: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let info = SubjectPublicKeyInfoRef::from_der(spki).ok()?;
    let key = info.subject_public_key.as_bytes()?;
    let algorithm: &dyn VerificationAlgorithm = match scheme {
        Scheme::EcdsaP521Sha512 => return p521_verifies(key, message, signature),
        Scheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        Scheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        Scheme::Ed25519 => &signature::ED25519,
        _ if bits < 2048 => return None,
        Scheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Scheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Scheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Scheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        Scheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
        Scheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    };
    let key = UnparsedPublicKey::new(algorithm, key);
    Some(key.verify(message, signature).is_ok())
}

/// The scheme of this name, or without a name the first one, of those that a key makes.
pub fn choose(
    schemes: impl Iterator<Item = u16> + Clone,
    name: Option<&str>,
) -> Result<Scheme, Refusal> {
    let mut known = schemes.clone().filter_map(Scheme::from_number);
    let is_wanted = |scheme: &Scheme| name.is_none_or(|name| scheme.name() == name);
    known.find(is_wanted).ok_or_else(|| {
        let names = schemes.filter_map(Scheme::from_number).map(Scheme::name);
        Refusal::usage(format_args!(
            "the key cannot make that; it makes {}",
            names.collect::<Vec<_>>().join(", ")
        ))
    })
}

fn p521_verifies(point: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
    let signature = p521::ecdsa::DerSignature::from_bytes(signature).ok();
    Some(signature.is_some_and(|signature| key.verify(message, &signature).is_ok()))
}
