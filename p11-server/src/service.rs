//! The port between the socket and the tokens: a small trait, so that all above it can be tested
//! without a token.

use std::sync::Arc;

use p11_proto::message::{Key, OpenKey};
use p11_proto::{Identity, Pin};

use crate::error::Error;

/// What the server can do for a client. Calls block, and may be made from many threads.
pub trait Service: Send + Sync {
    /// What is wrong with the module, `None` if nothing is. Calls no token.
    fn trouble(&self) -> Option<String>;

    /// Finds the key that a URI means.
    fn open_key(&self, request: &OpenKey) -> Result<Arc<Key>, Error>;

    /// Signs one message.
    fn sign(&self, request: &SignRequest<'_>) -> Result<Signed, Error>;
}

/// One signature that is asked for, by either protocol.
pub struct SignRequest<'a> {
    /// The URI as the client gave it.
    pub uri: &'a str,
    /// The PIN field of the request.
    pub pin: Option<&'a Pin>,
    /// TLS number of the scheme.
    pub scheme: u16,
    /// What to sign.
    pub message: &'a [u8],
    /// The key that was opened; protocol 1 always names it.
    pub identity: Option<Identity>,
}

/// A signature, and the key that made it.
pub struct Signed {
    /// In the form that TLS sends.
    pub signature: Vec<u8>,
    /// The key that signed.
    pub key: Arc<Key>,
}
