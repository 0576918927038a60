//! What the requests hold. The order of the fields is their order on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::scheme::Scheme;
use crate::secret::{Pin, UriText};

/// Asks what a key can do, once or twice in each handshake of an old client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChooseScheme {
    /// TLS numbers of the schemes; where there are none, the algorithm alone is asked for.
    pub offered: Vec<u16>,
    /// The key; without it, the one that the server's own URI means.
    pub uri: Option<UriText>,
    /// The PIN of the token, where it is not the server's own.
    pub pin: Option<Pin>,
}

/// Asks for a signature with the key's first scheme: EC the one of its curve, RSA PSS with SHA-256.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sign {
    /// What to sign.
    pub to_sign: ToSign,
    /// As in [`ChooseScheme`].
    pub uri: Option<UriText>,
    /// As in [`ChooseScheme`].
    pub pin: Option<Pin>,
}

/// Asks for a signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignWithSigScheme {
    /// What to sign.
    pub to_sign: ToSign,
    /// As in [`ChooseScheme`].
    pub uri: Option<UriText>,
    /// The scheme; without it, as in [`Sign`].
    pub sigscheme: Option<SigScheme>,
    /// As in [`ChooseScheme`].
    pub pin: Option<Pin>,
}

/// A whole message to sign, not its hash. `Debug` prints its length alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ToSign(pub ByteBuf);

impl fmt::Debug for ToSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The schemes that tedge1 has a number for. The order is their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SigScheme {
    /// [`Scheme::EcdsaP256Sha256`]
    EcdsaP256Sha256,
    /// [`Scheme::EcdsaP384Sha384`]
    EcdsaP384Sha384,
    /// [`Scheme::EcdsaP521Sha512`]
    EcdsaP521Sha512,
    /// [`Scheme::RsaPssSha256`]
    RsaPssSha256,
    /// [`Scheme::RsaPkcs1Sha256`]
    RsaPkcs1Sha256,
}

impl SigScheme {
    /// The name that tedge1 has for a scheme, `None` where it has none.
    pub fn from_scheme(scheme: Scheme) -> Option<SigScheme> {
        match scheme {
            Scheme::EcdsaP256Sha256 => Some(SigScheme::EcdsaP256Sha256),
            Scheme::EcdsaP384Sha384 => Some(SigScheme::EcdsaP384Sha384),
            Scheme::EcdsaP521Sha512 => Some(SigScheme::EcdsaP521Sha512),
            Scheme::RsaPssSha256 => Some(SigScheme::RsaPssSha256),
            Scheme::RsaPkcs1Sha256 => Some(SigScheme::RsaPkcs1Sha256),
            Scheme::RsaPkcs1Sha384
            | Scheme::RsaPkcs1Sha512
            | Scheme::RsaPssSha384
            | Scheme::RsaPssSha512
            | Scheme::Ed25519 => None,
        }
    }
}

impl From<SigScheme> for Scheme {
    fn from(scheme: SigScheme) -> Scheme {
        match scheme {
            SigScheme::EcdsaP256Sha256 => Scheme::EcdsaP256Sha256,
            SigScheme::EcdsaP384Sha384 => Scheme::EcdsaP384Sha384,
            SigScheme::EcdsaP521Sha512 => Scheme::EcdsaP521Sha512,
            SigScheme::RsaPssSha256 => Scheme::RsaPssSha256,
            SigScheme::RsaPkcs1Sha256 => Scheme::RsaPkcs1Sha256,
        }
    }
}

/// Makes a key pair on a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateKey {
    /// The token.
    pub uri: UriText,
    /// What kind of key.
    pub key: KeySpec,
    /// Its `CKA_LABEL`.
    pub label: String,
    /// Its `CKA_ID`; without it, a random one.
    pub id: Option<ByteBuf>,
    /// As in [`ChooseScheme`].
    pub pin: Option<Pin>,
}

/// A kind of key that can be made. The order is its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeySpec {
    /// RSA
    Rsa {
        /// Bits of the modulus.
        bits: u16,
    },
    /// EC on a NIST curve
    Ec {
        /// Bits of the curve's field: 256 or 384.
        curve: u16,
    },
}

/// Makes a token of this label ready for use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitToken {
    /// The label.
    pub label: String,
    /// The security officer's PIN; without it, the user's.
    pub so_pin: Option<Pin>,
    /// The user's PIN; without it, the one that the server is configured with.
    pub pin: Option<Pin>,
    /// The slot or token; without it, the one that is uninitialised.
    pub uri: Option<UriText>,
}

/// Changes a PIN, by the old one or by the security officer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangePin {
    /// The token; without it, the only one.
    pub uri: Option<UriText>,
    /// The PIN from now on.
    pub new_pin: Pin,
    /// The PIN until now; without it, the one that the server is configured with.
    pub old_pin: Option<Pin>,
    /// The security officer's PIN, for a reset.
    pub so_pin: Option<Pin>,
    /// Whether the security officer resets the PIN, whatever the old one was.
    pub reset: bool,
}

/// Deletes both halves of a key pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteKey {
    /// Names the key by `object` or `id`.
    pub uri: UriText,
    /// As in [`ChooseScheme`].
    pub pin: Option<Pin>,
}

/// Asks for the keys of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListKeys {
    /// The token; it may narrow the keys down.
    pub uri: Option<UriText>,
    /// As in [`ChooseScheme`].
    pub pin: Option<Pin>,
}
