//! `Error`, the response to a request that failed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request failed, as the server tells it.
///
/// Decisions rest on `code` (and `ckr`), never on the text of `message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Failure {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What happened and what to do about it, for people. Contains no secret.
    pub message: String,
    /// For failures of the module: the PKCS#11 function, `C_Sign` for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// For failures of the module: the name of its return value, `CKR_DEVICE_REMOVED` for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ckr: Option<String>,
}

/// The kinds of failure. New ones may come; a peer that does not know one reads `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The frame could not be understood. The connection is closed after it.
    BadFrame,
    /// The version in the preamble is not spoken here. The connection is closed after it.
    UnsupportedVersion,
    /// The request is not known here: this server is older than the client.
    Unsupported,
    /// The URI is no RFC 7512 URI, or carries an attribute that a client may not send.
    BadUri,
    /// A field is missing, has the wrong type or a value that makes no sense.
    BadRequest,
    /// No token matches the URI.
    TokenNotFound,
    /// No key matches the URI.
    KeyNotFound,
    /// Several tokens could hold the key and each wants a login: name one in the URI.
    AmbiguousToken,
    /// Several keys match, and the request would change one: name it in the URI.
    AmbiguousKey,
    /// What is to be made is there already.
    AlreadyExists,
    /// The URI leads to another key than the one that was opened. Open it again.
    KeyChanged,
    /// The key or its token cannot do the scheme.
    UnsupportedScheme,
    /// The token wants a PIN and none is known.
    PinRequired,
    /// The token refused the PIN, or has refused it before, or is logged in with another one.
    PinIncorrect,
    /// The token accepts no PIN any more.
    PinLocked,
    /// No PIN is sent, since the token says it is the last try, or since two were refused.
    PinGuarded,
    /// The policy of the server does not let this user do this.
    NotAllowed,
    /// The request would change a token outside the server's own URI.
    OutOfScope,
    /// Key or token cannot do this.
    NotSupported,
    /// All places or sessions are taken; the same request may succeed later.
    Busy,
    /// The token did not answer in time.
    Timeout,
    /// The server's configuration cannot be used, or its module cannot be loaded. Only `Ping` and `Status` are
    /// answered until that is mended.
    Misconfigured,
    /// The module is not initialised at this moment; the server keeps trying.
    ModuleUnavailable,
    /// The module failed: `function` and `ckr` say where and how.
    Module,
    /// A defect of the server.
    Internal,
    /// A kind that this peer does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
