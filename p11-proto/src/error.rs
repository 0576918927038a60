//! What a request can fail with: [`Failure`] travels, [`Error`] is met while reading or writing.

use std::fmt;
use std::io;

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
    /// A field has a value that makes no sense.
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

/// What can go wrong with a frame or a public key on this side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed the connection inside a frame.
    #[error("the connection was closed in the middle of a message")]
    Truncated,
    /// The first bytes are not those of protocol 1.
    #[error("this is not protocol 1: it does not start with \"P11\"")]
    NotProtocol1,
    /// Protocol 1's mark with another version.
    #[error("version {0} of the protocol is not spoken here")]
    Version(u8),
    /// A message longer than [`crate::frame::MAX_LEN`], announced by the peer or about to be sent.
    #[error("a message of {0} bytes is too long: {max} at most", max = crate::frame::MAX_LEN)]
    TooLong(usize),
    /// The first byte is not that of tedge1.
    #[error("this is not tedge1 of a version that is spoken here: it does not start with 00")]
    NotTedge1,
    /// The bytes are not those of a message, in MessagePack or for tedge1 in postcard. Quotes none
    /// of its values.
    #[error("the message cannot be decoded: {0}")]
    Malformed(&'static str),
    /// A well-formed message of a name that is not known here.
    #[error("the message {0:?} is not known here")]
    UnknownMessage(String),
    /// A tedge1 message of a number that is not known here.
    #[error("the message of number {0} is not known here")]
    UnknownNumber(u32),
    /// A public key or certificate cannot be used.
    #[error("{0}")]
    PublicKey(&'static str),
}
