//! Keys and certificates on tokens: listing, creating, storing and deleting them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::nil::or_default;
use super::signing::KeyType;
use crate::secret::{Pin, UriText};
use crate::spki::{Identity, PublicKey};

/// Asks for the keys and certificates of one token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListKeys {
    /// Names the token, and may narrow the objects down.
    pub uri: UriText,
    /// Without a PIN only what is public is listed, unless the server has a PIN for the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
}

/// Keys and certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Objects {
    /// In a stable order.
    pub objects: Vec<ObjectEntry>,
    /// Whether there are more than fit into a frame.
    #[serde(default, deserialize_with = "or_default")]
    pub truncated: bool,
    /// Why some are missing, for people: private keys are not shown without a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One object on a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObjectEntry {
    /// Private key, public key or certificate.
    pub class: Class,
    /// The kind of the key, or of the certificate's key.
    pub key_type: KeyType,
    /// RSA: bits of the modulus. EC: bits of the curve's field. 0 where it cannot be told.
    #[serde(default, deserialize_with = "or_default")]
    pub bits: u32,
    /// `CKA_LABEL`
    pub label: String,
    /// `CKA_ID`
    pub id: ByteBuf,
    /// Its full URI.
    pub uri: String,
    /// Private keys: `CKA_SIGN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_sign: Option<bool>,
    /// Private keys: `CKA_EXTRACTABLE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extractable: Option<bool>,
    /// Private keys: `CKA_ALWAYS_AUTHENTICATE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always_authenticate: Option<bool>,
}

impl ObjectEntry {
    /// Its id as hexadecimal digits, two for each byte.
    pub fn id_hex(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What an object is (PKCS#11 `CKA_CLASS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Class {
    /// `CKO_PRIVATE_KEY`
    Private,
    /// `CKO_PUBLIC_KEY`
    Public,
    /// `CKO_CERTIFICATE`
    Certificate,
    /// One that a newer peer knows.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Asks for the public half of a key, without a login where the module permits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GetPublicKey {
    /// Names the key.
    pub uri: UriText,
    /// For a token that shows it only after a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublicKeyEntry {
    /// The full URI of the key.
    pub uri: String,
    /// RSA, EC or Ed25519.
    pub key_type: KeyType,
    /// As in [`super::OpenedKey`].
    pub bits: u32,
    /// A normalised DER `SubjectPublicKeyInfo`.
    pub spki: ByteBuf,
    /// SHA-256 of `spki`.
    pub identity: Identity,
}

impl PublicKeyEntry {
    /// A public key and its URI.
    pub fn new(uri: impl Into<String>, public: &PublicKey) -> Self {
        PublicKeyEntry {
            uri: uri.into(),
            key_type: public.kind().into(),
            bits: public.kind().bits(),
            spki: ByteBuf::from(public.spki()),
            identity: public.identity(),
        }
    }
}

/// Asks for certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GetCertificates {
    /// Names the token, and the certificate of the leaf by `object` or `id`.
    pub uri: UriText,
    /// For a token that shows them only after a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
}

/// Certificates: each is followed by that of its issuer, as far as the token has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Certificates {
    /// Leaf first.
    pub certificates: Vec<CertificateEntry>,
    /// Whether there are more than fit into a frame.
    #[serde(default, deserialize_with = "or_default")]
    pub truncated: bool,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CertificateEntry {
    /// Its full URI.
    pub uri: String,
    /// DER
    pub certificate: ByteBuf,
}

/// Stores the certificate of a key that is on the token, with the key's id and label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImportCertificate {
    /// Names the token, and may name the key.
    pub uri: UriText,
    /// As in [`ListKeys`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// DER
    pub certificate: ByteBuf,
}

/// The certificate was stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Imported {
    /// Its URI.
    pub uri: String,
}

/// Makes a key pair on a token: private, sensitive, not extractable, for signing only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreateKey {
    /// Names the token.
    pub uri: UriText,
    /// As in [`ListKeys`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// What kind of key.
    pub key: KeySpec,
    /// Its `CKA_LABEL`.
    pub label: String,
    /// Its `CKA_ID`, which no other key may have; without it, 20 random bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ByteBuf>,
}

/// A kind of key that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeySpec {
    /// RSA, EC or Ed25519.
    pub key_type: KeyType,
    /// RSA: 2048, 3072 or 4096. EC: 256, 384 or 521. Ed25519: nothing.
    #[serde(default, deserialize_with = "or_default")]
    pub bits: u32,
}

impl KeySpec {
    /// A kind of key and its size; an Ed25519 key has no choice of sizes.
    pub const fn new(key_type: KeyType, bits: u32) -> Self {
        KeySpec { key_type, bits }
    }
}

/// Deletes both halves of a key pair. Certificates stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeleteKey {
    /// Names the key by `object` or `id`.
    pub uri: UriText,
    /// As in [`ListKeys`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Whether every key pair that matches goes, not one alone: what `tedge` expects. Never on the wire.
    #[serde(skip)]
    pub all: bool,
}

/// Deletes one certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeleteCertificate {
    /// Names the certificate by its own `object` or `id`, or the token alone where `certificate` is there.
    pub uri: UriText,
    /// As in [`ListKeys`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// The certificate itself (DER), where several have the same names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ByteBuf>,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Deleted {
    /// The URIs of the objects that are gone; none if there were none.
    pub deleted: Vec<String>,
}
