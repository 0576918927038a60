//! The traits of RustCrypto, crates `signature` and `spki`: keys and signatures for X.509, CMS, JWS and COSE.

use std::sync::Arc;

use der::asn1::{BitString, ContextSpecific, ObjectIdentifier, UintRef};
use der::{Any, AnyRef, Decode, Document, Encode, Sequence, TagMode, TagNumber};
use p11_proto::spki::{Kind, PublicKey};
use p11_proto::{ErrorCode, Failure, Scheme};
use signature::{Keypair, SignatureEncoding, Signer};
use spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey,
    SignatureBitStringEncoding,
};

use crate::error::Error;
use crate::signing_key::SigningKey;

impl SigningKey {
    /// The key with one scheme, for libraries that take the traits of RustCrypto.
    ///
    /// # Errors
    /// `UnsupportedScheme` for one that the key cannot make ([`SigningKey::schemes`]).
    pub fn with_scheme(&self, scheme: Scheme) -> Result<KeyWithScheme, Error> {
        match self.schemes().contains(&scheme.number().into()) {
            true => Ok(KeyWithScheme {
                key: self.clone(),
                scheme,
            }),
            false => {
                let message = format!(
                    "the key {} cannot sign with {scheme}, but with {:?}",
                    self.uri(),
                    self.schemes()
                );
                Err(Failure::new(ErrorCode::UnsupportedScheme, message).into())
            }
        }
    }
}

/// A key that signs with one scheme: [`signature::Signer`] for [`X509Signature`] and [`FixedSignature`],
/// [`signature::Keypair`], and [`spki::DynSignatureAlgorithmIdentifier`], which together are what `x509-cert` asks for. It takes
/// whole messages, not digests.
///
/// [`Signer::try_sign`] is a request that blocks. Its error has this crate's as its source; [`Signer::sign`] panics where
/// there is no signature.
#[derive(Clone, Debug)]
pub struct KeyWithScheme {
    key: SigningKey,
    scheme: Scheme,
}

impl KeyWithScheme {
    /// The key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// What it signs with.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    fn signed(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let signed = self.key.sign(self.scheme, message);
        signed.map_err(signature::Error::from_source)
    }
}

impl Keypair for KeyWithScheme {
    type VerifyingKey = VerifyingKey;

    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(Arc::new(self.key.public_key_info().clone()))
    }
}

impl DynSignatureAlgorithmIdentifier for KeyWithScheme {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(algorithm(self.scheme)?)
    }
}

impl Signer<X509Signature> for KeyWithScheme {
    fn try_sign(&self, message: &[u8]) -> Result<X509Signature, signature::Error> {
        self.signed(message).map(X509Signature)
    }
}

impl Signer<FixedSignature> for KeyWithScheme {
    fn try_sign(&self, message: &[u8]) -> Result<FixedSignature, signature::Error> {
        let signature = self.signed(message)?;
        let fixed = match self.key.public_key_info().kind() {
            Kind::Ec(curve) => fixed(&signature, curve.bytes())
                .ok_or_else(|| Error::bad_answer("the ECDSA signature is no Ecdsa-Sig-Value"))
                .map_err(signature::Error::from_source)?,
            _ => signature,
        };
        Ok(FixedSignature(fixed))
    }
}

/// The public half, for whoever wants it as a `SubjectPublicKeyInfo`. Verifying is the work of other crates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey(Arc<PublicKey>);

impl EncodePublicKey for VerifyingKey {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::try_from(self.0.spki())?)
    }
}

macro_rules! signature_of_bytes {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(Vec<u8>);

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                $name(bytes.to_vec())
            }
        }

        impl From<$name> for Vec<u8> {
            fn from(signature: $name) -> Self {
                signature.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl SignatureEncoding for $name {
            type Repr = Vec<u8>;
        }
    };
}

signature_of_bytes! {
    /// A signature as X.509, CMS and TLS have it: for ECDSA a DER `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3).
    X509Signature
}

signature_of_bytes! {
    /// A signature as JWS and COSE have it: for ECDSA r and s, each as long as the curve's field (RFC 7518 section 3.4).
    FixedSignature
}

impl SignatureBitStringEncoding for X509Signature {
    fn to_bitstring(&self) -> der::Result<BitString> {
        BitString::from_bytes(&self.0)
    }
}

/// RFC 3279 section 2.2.3.
#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// The two halves of an ECDSA signature, each filled up to this length.
fn fixed(der: &[u8], length: usize) -> Option<Vec<u8>> {
    let halves = EcdsaSigValue::from_der(der).ok()?;
    let mut fixed = Vec::with_capacity(2 * length);
    for half in [halves.r, halves.s] {
        let missing = length.checked_sub(half.as_bytes().len())?;
        fixed.resize(fixed.len() + missing, 0);
        fixed.extend_from_slice(half.as_bytes());
    }
    Some(fixed)
}

const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";
const MGF1: &str = "1.2.840.113549.1.1.8";

/// RFC 5758 section 3.2, RFC 4055 sections 3.1 and 5, RFC 8410 section 3.
fn algorithm(scheme: Scheme) -> der::Result<AlgorithmIdentifierOwned> {
    let null = Some(Any::from(AnyRef::NULL));
    let (oid, parameters) = match scheme {
        Scheme::RsaPkcs1Sha256 => ("1.2.840.113549.1.1.11", null),
        Scheme::RsaPkcs1Sha384 => ("1.2.840.113549.1.1.12", null),
        Scheme::RsaPkcs1Sha512 => ("1.2.840.113549.1.1.13", null),
        Scheme::EcdsaP256Sha256 => ("1.2.840.10045.4.3.2", None),
        Scheme::EcdsaP384Sha384 => ("1.2.840.10045.4.3.3", None),
        Scheme::EcdsaP521Sha512 => ("1.2.840.10045.4.3.4", None),
        Scheme::RsaPssSha256 => (RSASSA_PSS, Some(pss("2.16.840.1.101.3.4.2.1", 32)?)),
        Scheme::RsaPssSha384 => (RSASSA_PSS, Some(pss("2.16.840.1.101.3.4.2.2", 48)?)),
        Scheme::RsaPssSha512 => (RSASSA_PSS, Some(pss("2.16.840.1.101.3.4.2.3", 64)?)),
        Scheme::Ed25519 => ("1.3.101.112", None),
        _ => return Err(der::ErrorKind::Failed.into()),
    };
    identifier(oid, parameters)
}

fn identifier(oid: &str, parameters: Option<Any>) -> der::Result<AlgorithmIdentifierOwned> {
    Ok(AlgorithmIdentifierOwned {
        oid: ObjectIdentifier::new(oid)?,
        parameters,
    })
}

/// `RSASSA-PSS-params` (RFC 4055 section 3.1), with MGF1 of the same hash and a salt as long as the hash.
fn pss(hash: &str, length: u8) -> der::Result<Any> {
    let hash = identifier(hash, Some(Any::from(AnyRef::NULL)))?;
    let mask = identifier(MGF1, Some(Any::encode_from(&hash)?))?;
    let mut parameters = explicit(0, hash)?;
    parameters.extend(explicit(1, mask)?);
    parameters.extend(explicit(2, length)?);
    Any::new(der::Tag::Sequence, parameters)
}

fn explicit<T>(number: u32, value: T) -> der::Result<Vec<u8>>
where
    ContextSpecific<T>: Encode,
{
    ContextSpecific {
        tag_number: TagNumber(number),
        tag_mode: TagMode::Explicit,
        value,
    }
    .to_der()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_halves_of_an_ecdsa_signature_are_filled_up() {
        let der = [0x30, 7, 0x02, 2, 0, 0xff, 0x02, 1, 5];
        assert_eq!(fixed(&der, 3).unwrap(), [0, 0, 0xff, 0, 0, 5]);
        assert_eq!(fixed(&[0x30, 8, 0x02, 3, 1, 2, 3, 0x02, 1, 5], 2), None);
        assert_eq!(fixed(&der[..8], 3), None, "cut off");
    }
}
