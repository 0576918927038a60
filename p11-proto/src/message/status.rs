//! `Ping` and `Status`: whether the server runs, and whether it can use its module.

use serde::{Deserialize, Serialize};

/// Asks whether the server runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ping {}

/// The server runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pong {
    /// Name and version of the server, for people.
    pub server: String,
    /// The highest version of the protocol that it speaks.
    pub protocol: u8,
}

/// Asks whether the module can be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GetStatus {}

/// Whether the module can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// Name and version of the server, for people.
    pub server: String,
    /// Whether the module is initialised and no call of it hangs.
    pub available: bool,
    /// What is wrong if it is not, and when it is tried again, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}
