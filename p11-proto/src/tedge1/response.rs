//! What the responses hold. The order of the fields is their order on the wire.

use serde::{Deserialize, Serialize};

/// What a key can do of what was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenScheme {
    /// The TLS number of one of the schemes that were offered, where the key can do one.
    pub scheme: Option<u16>,
    /// What kind of key it is.
    pub algorithm: Algorithm,
}

/// The kind of a key, by the numbers of TLS 1.2's `SignatureAlgorithm` (RFC 5246 section 7.4.1.4.1,
/// RFC 8422 section 5.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Algorithm {
    /// RSA
    Rsa = 1,
    /// ECDSA
    Ecdsa = 3,
    /// Ed25519
    Ed25519 = 7,
}

impl From<Algorithm> for u8 {
    fn from(algorithm: Algorithm) -> u8 {
        algorithm as u8
    }
}

impl TryFrom<u8> for Algorithm {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Algorithm, &'static str> {
        [Algorithm::Rsa, Algorithm::Ecdsa, Algorithm::Ed25519]
            .into_iter()
            .find(|algorithm| u8::from(*algorithm) == number)
            .ok_or("a signature algorithm that is not known here")
    }
}

/// The key pair that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedKey {
    /// Its public key, see [`super::legacy_pem`].
    pub pem: String,
    /// Its URI.
    pub uri: String,
}

/// One token (PKCS#11 section 3.2, `CK_TOKEN_INFO`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// Number of the slot, today.
    pub slot: u64,
    /// Its label.
    pub label: String,
    /// Its model.
    pub model: String,
    /// Its manufacturer.
    pub manufacturer: String,
    /// Its serial number.
    pub serial: String,
    /// Whether it was initialised (`CKF_TOKEN_INITIALIZED`).
    pub initialized: bool,
    /// A URI that leads to it.
    pub uri: String,
}

/// One half of a key pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// `private` or `public`.
    pub class: String,
    /// `RSA`, `EC` or another name.
    pub key_type: String,
    /// Its `CKA_LABEL`.
    pub label: String,
    /// Its `CKA_ID` as lower-case hex.
    pub id: String,
    /// Its URI.
    pub uri: String,
}
