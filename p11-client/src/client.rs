//! A client of the server: one method for each request.

use std::path::Path;
use std::sync::Arc;

use p11_proto::message::{
    Certificates, ChangePin, CreateKey, DeleteCertificate, DeleteKey, Deleted, GetCertificates,
    GetPublicKey, GetStatus, ImportCertificate, Imported, InitToken, ListKeys, ListTokens, Message,
    Objects, OpenKey, OpenedKey, PinChanged, Ping, Pong, PublicKeyEntry, Request, Response, Sign,
    Status, TokenReady, Tokens,
};

use crate::config::Config;
use crate::error::Error;
use crate::transport::Transport;

/// A client of `tedge-p11-server`.
///
/// Connects with the first request and keeps the connection. Clones share their connections. Several
/// threads may send requests at once, each over a connection of its own.
///
/// Requests are repeated while the server restarts, see [`Config::retry_for`]. Those that change a
/// token are sent once: if the answer is lost, the error is [`Error::OutcomeUnknown`]. All other
/// errors are listed in [`Error`].
#[derive(Clone, Debug)]
pub struct Client(Arc<Transport>);

/// Sends a request and returns the fields of the response that belongs to it.
macro_rules! ask {
    ($client:ident, $request:ident($fields:expr) => $response:ident) => {
        match $client.0.call(&Request::$request($fields))? {
            Response::$response(answer) => Ok(answer),
            other => Err(Error::unexpected($client.socket_path(), other.name())),
        }
    };
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(config: Config) -> Self {
        Client(Arc::new(Transport::new(config)))
    }

    /// Asks for the server's name and protocol; a server that is activated by its socket starts.
    pub fn ping(&self) -> Result<Pong, Error> {
        ask!(self, Ping(Ping::default()) => Pong)
    }

    /// Asks whether the server's PKCS#11 module works, and what is wrong if it does not.
    pub fn status(&self) -> Result<Status, Error> {
        ask!(self, Status(GetStatus::default()) => Status)
    }

    /// Finds the key that matches a URI and what it can do.
    pub fn open_key(&self, request: OpenKey) -> Result<OpenedKey, Error> {
        ask!(self, OpenKey(request) => Key)
    }

    /// Signs a message. ECDSA signatures are a DER `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3).
    pub fn sign(&self, request: Sign) -> Result<Vec<u8>, Error> {
        ask!(self, Sign(request) => Signature).map(|answer| answer.signature.into_vec())
    }

    /// Lists the tokens, initialised or not.
    pub fn list_tokens(&self) -> Result<Tokens, Error> {
        ask!(self, ListTokens(ListTokens::default()) => Tokens)
    }

    /// Lists the keys and certificates of a token.
    pub fn list_keys(&self, request: ListKeys) -> Result<Objects, Error> {
        ask!(self, ListKeys(request) => Objects)
    }

    /// Reads the public key of a key.
    pub fn get_public_key(&self, request: GetPublicKey) -> Result<PublicKeyEntry, Error> {
        ask!(self, GetPublicKey(request) => PublicKey)
    }

    /// Reads a certificate and those of its issuers, leaf first.
    pub fn get_certificates(&self, request: GetCertificates) -> Result<Certificates, Error> {
        ask!(self, GetCertificates(request) => Certificates)
    }

    /// Stores the certificate of a key that is on the token.
    pub fn import_certificate(&self, request: ImportCertificate) -> Result<Imported, Error> {
        ask!(self, ImportCertificate(request) => Imported)
    }

    /// Creates a key pair on a token.
    pub fn create_key(&self, request: CreateKey) -> Result<PublicKeyEntry, Error> {
        ask!(self, CreateKey(request) => PublicKey)
    }

    /// Deletes a key pair. If several match the URI, an old server deletes them all; one that speaks
    /// protocol 1 refuses.
    pub fn delete_key(&self, request: DeleteKey) -> Result<Deleted, Error> {
        ask!(self, DeleteKey(request) => Deleted)
    }

    /// Deletes a certificate. Old servers cannot.
    pub fn delete_certificate(&self, request: DeleteCertificate) -> Result<Deleted, Error> {
        ask!(self, DeleteCertificate(request) => Deleted)
    }

    /// Initialises a token.
    pub fn init_token(&self, request: InitToken) -> Result<TokenReady, Error> {
        ask!(self, InitToken(request) => TokenReady)
    }

    /// Changes the PIN of a token's user.
    pub fn change_pin(&self, request: ChangePin) -> Result<PinChanged, Error> {
        ask!(self, ChangePin(request) => PinChanged)
    }

    pub(crate) fn socket_path(&self) -> &Path {
        self.0.socket_path()
    }
}
