//! tedge1, the protocol of released `tedge` clients and servers (1.7 to 2.0).
//!
//! A client writes one request and shuts down its writing half; the server reads to the end, writes
//! one response and closes. There is no length prefix: whoever reads the socket stops at
//! [`frame::MAX_LEN`](crate::frame::MAX_LEN), which holds for tedge1 too, and [`Request::encode`]
//! refuses to write more.
//!
//! The first byte is [`VERSION`], the rest is [postcard](https://postcard.jamesmunns.com/wire-format):
//! the number of the message, then its fields in order. Bytes that follow are ignored, since a newer
//! peer may append fields. A message is decoded without allocating more than a multiple of its length,
//! whatever lengths it claims.
//!
//! This protocol does not grow any more, so its types are exhaustive.

mod codec;
mod pem;
mod request;
mod response;

pub use codec::VERSION;
pub use pem::{legacy_pem, public_key_from_legacy_pem};
pub use request::{
    ChangePin, ChooseScheme, CreateKey, DeleteKey, InitToken, KeySpec, ListKeys, SigScheme, Sign,
    SignWithSigScheme, ToSign,
};
pub use response::{Algorithm, ChosenScheme, CreatedKey, KeyEntry, TokenEntry};

use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::body::Body;
use crate::error::Error;
use crate::frame::{MAGIC, PREAMBLE};
use crate::secret::UriText;

/// The number of [`Response::Pong`].
const PONG: u8 = 9;

codec::messages! {
    /// What a client asks for. Answered by the response of the same name, or by an error.
    pub enum Request {
        /// Which of the schemes that the TLS peer offers can the key do?
        ChooseScheme(ChooseScheme) = 1,
        /// A signature with the key's first scheme.
        Sign(Sign) = 2,
        /// A signature with a scheme of the client's choice. Answered by [`Response::Sign`].
        SignWithSigScheme(SignWithSigScheme) = 5,
        /// The public key of the key that the URI means, or of the only one.
        GetPublicKeyPem(Option<UriText>) = 6,
        /// Does the server run? Wakes a server that is activated by its socket.
        Ping = 8,
        /// A new key pair on a token.
        CreateKey(CreateKey) = 10,
        /// The URIs of the initialised tokens.
        GetTokensUris = 12,
        /// A token made ready for use.
        InitToken(InitToken) = 14,
        /// All tokens, initialised or not.
        ListTokens = 16,
        /// Another PIN for a token's user.
        ChangePin(ChangePin) = 18,
        /// The end of a key pair.
        DeleteKey(DeleteKey) = 20,
        /// The keys of a token.
        ListKeys(ListKeys) = 22,
    }
}

impl Request {
    /// Whether it changes a token, so that nobody sends it again when its answer is lost.
    pub fn changes_token(&self) -> bool {
        matches!(
            self,
            Request::CreateKey(_)
                | Request::DeleteKey(_)
                | Request::InitToken(_)
                | Request::ChangePin(_)
        )
    }

    /// Whether a card may take minutes for it.
    pub fn takes_minutes(&self) -> bool {
        matches!(self, Request::CreateKey(_) | Request::InitToken(_))
    }
}

codec::messages! {
    /// What the server answers.
    pub enum Response {
        /// The request failed: a text on whose phrases old clients decide.
        Error(String) = 0,
        /// The scheme, and the algorithm of the key.
        ChooseScheme(ChosenScheme) = 3,
        /// The signature as TLS sends it: ECDSA as a DER `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3).
        Sign(ByteBuf) = 4,
        /// The public key, see [`legacy_pem`].
        GetPublicKeyPem(String) = 7,
        /// The server runs. See [`advertised_protocol`] for what may follow.
        Pong = PONG,
        /// The key pair that was made.
        CreateKey(CreatedKey) = 11,
        /// The tokens' URIs.
        GetTokensUris(Vec<String>) = 13,
        /// The URI of the token that is ready.
        InitToken(String) = 15,
        /// The tokens.
        ListTokens(Vec<TokenEntry>) = 17,
        /// The URI of the token whose PIN was changed.
        ChangePin(String) = 19,
        /// The URIs of the objects that were deleted; none where there was none.
        DeleteKey(Vec<String>) = 21,
        /// The keys.
        ListKeys(Vec<KeyEntry>) = 23,
    }
}

/// The reply to [`Request::Ping`] of a server that speaks protocol 1 as well: [`Response::Pong`],
/// which is all that an old client reads, and the preamble of protocol 1.
pub const fn pong_with_advertisement() -> [u8; 6] {
    let [a, b, c, version] = PREAMBLE;
    [VERSION, PONG, a, b, c, version]
}

/// The highest version of protocol 1 that a server advertised in this reply to [`Request::Ping`];
/// `None` for a server that speaks tedge1 alone.
pub fn advertised_protocol(reply: &[u8]) -> Option<u8> {
    let advertisement = reply.strip_prefix(&[VERSION, PONG])?;
    advertisement.strip_prefix(&MAGIC)?.first().copied()
}
