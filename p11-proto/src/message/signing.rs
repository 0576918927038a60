//! Opening a key, and signing with it: all that a TLS handshake needs.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::scheme::Scheme;
use crate::secret::{Pin, UriText};
use crate::spki::{Identity, Kind, PublicKey};

/// Asks which key a URI means. Done once, before any handshake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OpenKey {
    /// An RFC 7512 URI; `pkcs11:` means any key that the server lets clients use.
    pub uri: UriText,
    /// The PIN of the token, where it is not the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// The public key of the client's certificate, a DER `SubjectPublicKeyInfo`. Among several keys
    /// that match the URI, the one with this public key is meant, and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spki: Option<ByteBuf>,
}

/// What a client needs to know of a key, so that a handshake costs one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OpenedKey {
    /// The full URI of the key that was chosen, without PIN.
    pub uri: String,
    /// RSA, EC or Ed25519.
    pub key_type: KeyType,
    /// RSA: bits of the modulus. EC: bits of the curve's field. Ed25519: 255.
    pub bits: u32,
    /// TLS numbers of the schemes that key and token can do, the preferred one first.
    pub schemes: Vec<u16>,
    /// The public key, a normalised DER `SubjectPublicKeyInfo` (see [`crate::spki`]).
    pub spki: ByteBuf,
    /// SHA-256 of `spki`.
    pub identity: Identity,
    /// What was not told by the token or the URI, for people: several keys match and the first was taken, or the
    /// given public key is taken at its word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl OpenedKey {
    /// A key and its schemes, the preferred one first.
    pub fn new(
        uri: impl Into<String>,
        public: &PublicKey,
        schemes: impl IntoIterator<Item = Scheme>,
    ) -> Self {
        OpenedKey {
            uri: uri.into(),
            key_type: public.kind().into(),
            bits: public.kind().bits(),
            schemes: schemes.into_iter().map(Scheme::number).collect(),
            spki: ByteBuf::from(public.spki()),
            identity: public.identity(),
            note: None,
        }
    }

    /// Sets the field `note`.
    #[must_use]
    pub fn note(mut self, note: impl Into<Option<String>>) -> Self {
        self.note = note.into();
        self
    }
}

/// The kind of a key pair (PKCS#11 `CKA_KEY_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeyType {
    /// `CKK_RSA`
    #[serde(rename = "RSA")]
    Rsa,
    /// `CKK_EC` on a NIST curve
    #[serde(rename = "EC")]
    Ec,
    /// `CKK_EC_EDWARDS` on edwards25519
    Ed25519,
    /// One that a newer peer knows.
    #[serde(other)]
    Unknown,
}

impl From<Kind> for KeyType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Rsa { .. } => KeyType::Rsa,
            Kind::Ec(_) => KeyType::Ec,
            Kind::Ed25519 => KeyType::Ed25519,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyType::Rsa => "RSA",
            KeyType::Ec => "EC",
            KeyType::Ed25519 => "Ed25519",
            KeyType::Unknown => "unknown",
        })
    }
}

/// Asks for one signature.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sign {
    /// As in [`OpenKey`].
    pub uri: UriText,
    /// As in [`OpenKey`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// TLS number of the signature scheme (RFC 8446 section 4.2.3).
    pub scheme: u16,
    /// What to sign: the whole message, not its hash.
    pub message: ByteBuf,
    /// The key that must sign: [`OpenedKey::identity`] from when it was opened.
    pub identity: Identity,
}

/// The message is not printed: what a device signs is its own business.
impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sign")
            .field("uri", &self.uri)
            .field("pin", &self.pin)
            .field("scheme", &self.scheme)
            .field("message", &format_args!("{} bytes", self.message.len()))
            .field("identity", &self.identity)
            .finish()
    }
}

/// A signature in the form that TLS sends (ECDSA as DER, RSA and Ed25519 as they are).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Signature {
    /// The bytes of the signature.
    pub signature: ByteBuf,
}
