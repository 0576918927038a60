//! A client of the server: one method for each request.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p11_proto::Pin;
use p11_proto::message::{
    Certificates, ChangePin, CreateKey, DeleteCertificate, DeleteKey, Deleted, GetCertificates,
    GetPublicKey, GetStatus, ImportCertificate, Imported, InitToken, ListKeys, ListTokens, Message,
    Objects, OpenKey, OpenedKey, PinChanged, Ping, Pong, PublicKeyEntry, Request, Response, Sign,
    Status, TokenEntry, TokenReady, Tokens,
};
use p11_uri::redact;

use crate::config::{Config, SLOW_SIGNATURE};
use crate::error::Error;
#[cfg(feature = "module")]
use crate::module::{ModuleConfig, ModuleTransport};
use crate::socket_transport::SocketTransport;
use crate::transport::Transport;

/// A client of `tedge-p11-server`, or of what else a [`Transport`] leads to.
///
/// Its methods block until the answer is there. Clones share their transport, and several threads may send requests at
/// once: through the socket each over a connection of its own, the first of which is made by the first request.
///
/// Requests are repeated while the server restarts or is busy, see [`Config::retry_for`] and
/// [`Config::busy_for`]. Those that change a
/// token are sent once: if the answer is lost, the error is [`Error::OutcomeUnknown`]. All other
/// errors are listed in [`Error`].
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    pin: Option<Pin>,
    slow_signature: Duration,
    limit: Duration,
}

/// Sends a request and returns the fields of the response that belongs to it.
macro_rules! ask {
    ($client:ident, $request:ident($fields:expr) => $response:ident) => {
        match $client.call(&Request::$request($fields))? {
            Response::$response(answer) => Ok(answer),
            other => Err(Error::unexpected(other.name())),
        }
    };
}

impl Client {
    /// A client of the server at a socket.
    pub fn new(config: Config) -> Self {
        let (pin, slow_signature) = (config.pin.clone(), config.slow_signature);
        Client {
            pin,
            slow_signature,
            ..Client::with_transport(SocketTransport::new(config))
        }
    }

    /// A client of whatever this transport leads to.
    pub fn with_transport(transport: impl Transport + 'static) -> Self {
        Client {
            transport: Arc::new(transport),
            pin: None,
            slow_signature: SLOW_SIGNATURE,
            limit: Duration::MAX,
        }
    }

    /// A client of a PKCS#11 module that is loaded in this process.
    ///
    /// # Errors
    /// Those of [`ModuleTransport::load`].
    #[cfg(feature = "module")]
    pub fn with_module(config: ModuleConfig) -> Result<Self, Error> {
        ModuleTransport::load(config).map(Client::with_transport)
    }

    /// The same client with another [`Config::pin`].
    #[must_use]
    pub fn pin(mut self, pin: impl Into<Option<Pin>>) -> Self {
        self.pin = pin.into();
        self
    }

    /// The same client with another [`Config::slow_signature`].
    #[must_use]
    pub fn slow_signature(mut self, threshold: Duration) -> Self {
        self.slow_signature = threshold;
        self
    }

    /// The same client, which gives up a request after this time, where its configuration would wait longer. A module in the
    /// process cannot be interrupted in a call, so there it may take longer; a closure knows of no limit.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends any request, as it is, and returns the answer, which is never [`Response::Error`].
    pub fn call(&self, request: &Request) -> Result<Response, Error> {
        match self.transport.call_within(request, self.limit)? {
            Response::Error(failure) => Err(failure.into()),
            response => Ok(response),
        }
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
    pub fn open_key(&self, mut request: OpenKey) -> Result<OpenedKey, Error> {
        self.add_pin(&mut request.pin);
        ask!(self, OpenKey(request) => Key)
    }

    /// Signs a message. ECDSA signatures are a DER `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3).
    ///
    /// One that takes longer than [`Config::slow_signature`] is logged as a warning.
    pub fn sign(&self, mut request: Sign) -> Result<Vec<u8>, Error> {
        self.add_pin(&mut request.pin);
        let start = Instant::now();
        let request = Request::Sign(request);
        let answer = self.call(&request);
        if start.elapsed() >= self.slow_signature
            && let Request::Sign(sign) = &request
        {
            warn_of_slow(&sign.uri, start.elapsed(), answer.as_ref().err());
        }
        match answer? {
            Response::Signature(answer) => Ok(answer.signature.into_vec()),
            other => Err(Error::unexpected(other.name())),
        }
    }

    /// Lists the tokens, initialised or not.
    pub fn list_tokens(&self) -> Result<Tokens, Error> {
        ask!(self, ListTokens(ListTokens::default()) => Tokens)
    }

    /// The tokens that were initialised.
    pub fn initialized_tokens(&self) -> Result<Vec<TokenEntry>, Error> {
        let mut tokens = self.list_tokens()?.tokens;
        tokens.retain(|token| token.initialized);
        Ok(tokens)
    }

    /// Lists the keys and certificates of a token.
    pub fn list_keys(&self, mut request: ListKeys) -> Result<Objects, Error> {
        self.add_pin(&mut request.pin);
        ask!(self, ListKeys(request) => Objects)
    }

    /// Reads the public key of a key.
    pub fn get_public_key(&self, mut request: GetPublicKey) -> Result<PublicKeyEntry, Error> {
        self.add_pin(&mut request.pin);
        ask!(self, GetPublicKey(request) => PublicKey)
    }

    /// Reads a certificate and those of its issuers, leaf first.
    pub fn get_certificates(&self, mut request: GetCertificates) -> Result<Certificates, Error> {
        self.add_pin(&mut request.pin);
        ask!(self, GetCertificates(request) => Certificates)
    }

    /// Stores the certificate of a key that is on the token.
    pub fn import_certificate(&self, mut request: ImportCertificate) -> Result<Imported, Error> {
        self.add_pin(&mut request.pin);
        ask!(self, ImportCertificate(request) => Imported)
    }

    /// Creates a key pair on a token.
    pub fn create_key(&self, mut request: CreateKey) -> Result<PublicKeyEntry, Error> {
        self.add_pin(&mut request.pin);
        ask!(self, CreateKey(request) => PublicKey)
    }

    /// Deletes a key pair. If several match the URI, an old server deletes them all; one that speaks
    /// protocol 1 refuses.
    pub fn delete_key(&self, mut request: DeleteKey) -> Result<Deleted, Error> {
        self.add_pin(&mut request.pin);
        ask!(self, DeleteKey(request) => Deleted)
    }

    /// Deletes a certificate. Old servers cannot.
    pub fn delete_certificate(&self, mut request: DeleteCertificate) -> Result<Deleted, Error> {
        self.add_pin(&mut request.pin);
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

    /// The client's own PIN goes where the request has none.
    fn add_pin(&self, pin: &mut Option<Pin>) {
        if pin.is_none() {
            pin.clone_from(&self.pin);
        }
    }
}

fn warn_of_slow(key: &str, took: Duration, error: Option<&Error>) {
    let key = redact(key);
    match error {
        None => tracing::warn!(
            "a signature of {key} took {took:.1?}: a peer may have given up the handshake meanwhile, and an async runtime whose \
             thread this is stood still"
        ),
        Some(error) => tracing::warn!("no signature of {key} after {took:.1?}: {error}"),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
