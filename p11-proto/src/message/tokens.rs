//! Tokens: which there are, making one ready for use, and its PIN.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::nil::or_default;
use crate::secret::{Pin, UriText};

/// Asks for every slot with a token. Needs no PIN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListTokens {}

/// Every slot with a token that answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tokens {
    /// In a stable order.
    pub tokens: Vec<TokenEntry>,
    /// Whether there are more than fit into a frame.
    #[serde(default, deserialize_with = "or_default")]
    pub truncated: bool,
}

/// One token (PKCS#11 section 3.2, `CK_TOKEN_INFO`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// A URI that leads to it. An uninitialised token is named by its model and slot.
    pub uri: String,
    /// Whether it was initialised (`CKF_TOKEN_INITIALIZED`).
    pub initialized: bool,
    /// Whether its user's PIN was set (`CKF_USER_PIN_INITIALIZED`).
    pub user_pin_set: bool,
    /// Whether keys want a login (`CKF_LOGIN_REQUIRED`).
    pub login_required: bool,
    /// Whether PINs are typed at the token itself (`CKF_PROTECTED_AUTHENTICATION_PATH`).
    pub pin_pad: bool,
    /// Whether it cannot be changed (`CKF_WRITE_PROTECTED`).
    pub write_protected: bool,
    /// How the user's PIN stands.
    pub user_pin: PinState,
    /// How the security officer's PIN stands.
    pub so_pin: PinState,
}

/// How many tries a PIN has left, as far as a token tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PinState {
    /// As many as ever.
    Ok,
    /// At least one was used up.
    Low,
    /// One.
    FinalTry,
    /// None.
    Locked,
    /// Not told, or a state that a newer peer knows.
    #[default]
    #[serde(other)]
    Unknown,
}

impl fmt::Display for PinState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Makes a token of this label ready for use. A usable token of that label is left as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InitToken {
    /// The slot or token that is meant; without it, the one that is uninitialised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<UriText>,
    /// The label, 32 bytes at most.
    pub label: String,
    /// The security officer's PIN; without it, the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub so_pin: Option<Pin>,
    /// The user's PIN; without it, the one that the server is configured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
}

/// The token that is ready for use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TokenReady {
    /// Its URI.
    pub uri: String,
    /// Whether it was initialised just now, and not before.
    pub created: bool,
}

/// Changes the user's PIN, by the old one or by the security officer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChangePin {
    /// The token; without it, the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<UriText>,
    /// The PIN from now on.
    pub new_pin: Pin,
    /// The PIN until now; without it, the one that the server is configured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_pin: Option<Pin>,
    /// The security officer's PIN, for a reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub so_pin: Option<Pin>,
    /// Whether the security officer resets the PIN, whatever the old one was.
    #[serde(default, deserialize_with = "or_default")]
    pub reset: bool,
}

/// The PIN was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PinChanged {
    /// The token's URI.
    pub uri: String,
    /// Where the server's configuration still has the old PIN, and what to do about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}
