//! The port between the socket and the tokens: a small trait, so that all above it can be tested
//! without a token.

use std::sync::Arc;

use p11_proto::message::{
    Certificate, ChangePin, CreateKey, DeleteKey, GetCertificates, GetPublicKey, ImportCertificate,
    InitToken, Key, ListKeys, Object, OpenKey, PinChanged, PublicKey, Token, TokenReady,
};
use p11_proto::{Identity, Pin};
use p11_uri::{ObjectFacts, TokenFacts};

use crate::error::Error;

/// What the server can do for a client. Calls block, and may be made from many threads.
///
/// Each asks `access` about the token or key that it has chosen, before it does anything with it.
pub trait Service: Send + Sync {
    /// What is wrong with the module, `None` if nothing is. Calls no token.
    fn trouble(&self) -> Option<String>;

    /// Finds the key that a URI means.
    fn open_key(&self, request: &OpenKey, access: &dyn Access) -> Result<Arc<Key>, Error>;

    /// Signs one message.
    fn sign(&self, request: &SignRequest<'_>, access: &dyn Access) -> Result<Signed, Error>;

    /// Lists the tokens that the caller may know of, initialised or not.
    fn list_tokens(&self, access: &dyn Access) -> Result<Vec<Token>, Error>;

    /// Lists the keys and certificates of one token that the caller may know of.
    fn list_keys(&self, request: &ListKeys, access: &dyn Access) -> Result<Vec<Object>, Error>;

    /// Finds the public half of a key.
    fn public_key(&self, request: &GetPublicKey, access: &dyn Access) -> Result<PublicKey, Error>;

    /// Finds certificates, each followed by that of its issuer.
    fn certificates(
        &self,
        request: &GetCertificates,
        access: &dyn Access,
    ) -> Result<Vec<Certificate>, Error>;

    /// Stores a certificate beside its key. Answers its URI.
    fn import_certificate(
        &self,
        request: &ImportCertificate,
        access: &dyn Access,
    ) -> Result<String, Error>;

    /// Makes a key pair.
    fn create_key(&self, request: &CreateKey, access: &dyn Access) -> Result<PublicKey, Error>;

    /// Deletes a key pair, or with `several` all that match. Answers what is gone.
    fn delete_key(
        &self,
        request: &DeleteKey,
        several: bool,
        access: &dyn Access,
    ) -> Result<Vec<String>, Error>;

    /// Makes a token ready for use.
    fn init_token(&self, request: &InitToken, access: &dyn Access) -> Result<TokenReady, Error>;

    /// Changes the PIN of a token's user.
    fn change_pin(&self, request: &ChangePin, access: &dyn Access) -> Result<PinChanged, Error>;
}

/// Says whether a caller may touch what its request has led to.
pub trait Access {
    /// Asks about a token, and about an object on it where it is one that was chosen.
    ///
    /// # Errors
    /// [`Error::NotAllowed`]
    fn check(&self, token: &TokenFacts, object: Option<&ObjectFacts>) -> Result<(), Error>;
}

/// The access of a caller that is held to nothing.
pub struct Unrestricted;

impl Access for Unrestricted {
    fn check(&self, _: &TokenFacts, _: Option<&ObjectFacts>) -> Result<(), Error> {
        Ok(())
    }
}

/// One signature that is asked for, by either protocol.
pub struct SignRequest<'a> {
    /// The URI as the client gave it.
    pub uri: &'a str,
    /// The PIN field of the request.
    pub pin: Option<&'a Pin>,
    /// TLS number of the scheme; without it, the key's first.
    pub scheme: Option<u16>,
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
