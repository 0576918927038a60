//! What can go wrong while reading and writing messages and public keys.

use std::io;

use crate::body::MAX_LEN;

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
    /// Protocol 1, but another version of it.
    #[error("version {0} of the protocol is not spoken here")]
    Version(u8),
    /// A message longer than [`MAX_LEN`], announced by the peer or about to be sent.
    #[error("a message of {0} bytes is too long: {MAX_LEN} at most")]
    TooLong(usize),
    /// The first byte is not that of tedge1.
    #[error("this is not tedge1 of a version that is spoken here: it does not start with 00")]
    NotTedge1,
    /// The bytes are no message: no MessagePack of the right structure, or for tedge1 no postcard of
    /// the right fields. Quotes none of its values.
    #[error("the message cannot be decoded: {0}")]
    Malformed(&'static str),
    /// A well-formed message of a name that is not known here.
    #[error("the message {0:?} is not known here")]
    UnknownMessage(String),
    /// A field of a known message cannot be used. Quotes no value: it may be a PIN.
    #[error("the field {path} {problem}")]
    Field {
        /// The name of the message.
        message: &'static str,
        /// That name and the path to the field, `CreateKey.key.bits` for example.
        path: String,
        /// What is wrong with it, for people: it "is missing", for example.
        problem: &'static str,
    },
    /// A tedge1 message of a number that is not known here.
    #[error("the message of number {0} is not known here")]
    UnknownNumber(u32),
    /// A public key or certificate cannot be used.
    #[error("{0}")]
    PublicKey(&'static str),
    /// A reference to a key cannot be read or written.
    #[error("{0}")]
    KeyReference(&'static str),
}
