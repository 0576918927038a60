//! Is the server there, and is it well?

use serde::{Deserialize, Serialize};

/// Asks for a sign of life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ping {}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pong {
    /// Name and version of the server, for people.
    pub server: String,
    /// The highest version of the protocol that it speaks.
    pub protocol: u8,
}

/// Asks how the module is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GetStatus {}

/// How the module is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// Name and version of the server, for people.
    pub server: String,
    /// Whether the module is initialised and none of its tokens is stuck.
    pub available: bool,
    /// What is wrong if it is not, and when it is tried again, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}
