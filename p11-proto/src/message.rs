//! The messages of protocol 1: one struct for each, gathered in [`Request`] and [`Response`].
//!
//! On the wire a message is a map with one entry, its name, whose value is a map of its fields:
//! `{"Sign": {"uri": "pkcs11:…", "scheme": 1027, …}}`. Optional fields that are absent are left
//! out; fields that a reader does not know are ignored.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::error::Failure;
use crate::secret::Pin;
use crate::spki::Identity;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Is anybody there, and who? Answered by [`Response::Pong`].
    Ping(Ping),
    /// How is the module doing? Answered by [`Response::Status`]. Touches no token.
    Status(GetStatus),
    /// Which key is this, and what can it sign? Answered by [`Response::Key`].
    OpenKey(OpenKey),
    /// One signature. Answered by [`Response::Signature`].
    Sign(Sign),
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Ping`].
    Pong(Pong),
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::OpenKey`].
    Key(Key),
    /// To [`Request::Sign`].
    Signature(Signature),
    /// To any request that failed.
    Error(Failure),
}

/// A message that can be told from others by its name alone.
pub trait Message: Serialize + for<'de> Deserialize<'de> {
    /// The names that this reader knows. A frame with another name is no malformed frame: it comes
    /// from a newer peer.
    const NAMES: &'static [&'static str];

    /// The name of this message on the wire.
    fn name(&self) -> &'static str;
}

impl Message for Request {
    const NAMES: &'static [&'static str] = &["Ping", "Status", "OpenKey", "Sign"];

    fn name(&self) -> &'static str {
        match self {
            Request::Ping(_) => "Ping",
            Request::Status(_) => "Status",
            Request::OpenKey(_) => "OpenKey",
            Request::Sign(_) => "Sign",
        }
    }
}

impl Message for Response {
    const NAMES: &'static [&'static str] = &["Pong", "Status", "Key", "Signature", "Error"];

    fn name(&self) -> &'static str {
        match self {
            Response::Pong(_) => "Pong",
            Response::Status(_) => "Status",
            Response::Key(_) => "Key",
            Response::Signature(_) => "Signature",
            Response::Error(_) => "Error",
        }
    }
}

/// Asks for a sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ping {}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// Name and version of the server, for people.
    pub server: String,
    /// The highest version of the protocol that it speaks.
    pub protocol: u8,
}

/// Asks how the module is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetStatus {}

/// How the module is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name and version of the server, for people.
    pub server: String,
    /// Whether the module is initialised and none of its tokens is stuck.
    pub available: bool,
    /// What is wrong if it is not, and when it is tried again, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Asks which key a URI means. Done once, before any handshake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenKey {
    /// An RFC 7512 URI; `pkcs11:` means any key that the server lets clients use.
    pub uri: String,
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
pub struct Key {
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
}

/// The kind of a key pair (PKCS#11 `CKA_KEY_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Sign {
    /// As in [`OpenKey`].
    pub uri: String,
    /// As in [`OpenKey`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// TLS number of the signature scheme (RFC 8446 section 4.2.3).
    pub scheme: u16,
    /// What to sign: the whole message, not its hash.
    pub message: ByteBuf,
    /// The key that must sign: [`Key::identity`] from when it was opened.
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
pub struct Signature {
    /// The bytes of the signature.
    pub signature: ByteBuf,
}
