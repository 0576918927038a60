//! Clients of a server: the requests of the library in few words, with the server's failure as the error.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use p11_client::{
    Client, Config, ErrorCode, Failure, Pin,
    message::{
        ByteBuf, CertificateEntry, ChangePin, CreateKey, DeleteCertificate, DeleteKey,
        GetCertificates, GetPublicKey, ImportCertificate, InitToken, KeySpec, KeyType, ListKeys,
        ObjectEntry, OpenKey, OpenedKey, PinChanged, PublicKeyEntry, Sign, Status, TokenEntry,
        TokenReady,
    },
};
use p11_proto::{Request, Response, message::GetStatus};

use crate::{raw_client::RawClient, verify::verifies};

/// The kind of a new key, where it does not matter.
pub const P256: KeySpec = KeySpec::new(KeyType::Ec, 256);

/// A program that uses the server, with connections of its own. It sends no PIN unless it is told to.
#[derive(Clone)]
pub struct TestClient {
    client: Client,
    socket: PathBuf,
    pin: Option<Pin>,
}

impl TestClient {
    /// A client that has not connected yet. It shows each `Busy`, which others would not see.
    pub fn at(socket: &Path) -> Self {
        Self {
            client: Client::new(Config::new(socket).busy_for(Duration::ZERO)),
            socket: socket.into(),
            pin: None,
        }
    }

    /// The same, which sends a PIN with every request that has a place for one.
    pub fn with_pin(&self, pin: &str) -> Self {
        Self {
            pin: Some(pin.into()),
            ..self.clone()
        }
    }

    /// Opens the key that a URI means.
    pub fn open(&self, uri: &str) -> Result<ClientKey, Failure> {
        self.open_key(OpenKey::new(uri))
    }

    /// Opens the key that a URI means and that has this public key.
    pub fn open_certified(&self, uri: &str, spki: &[u8]) -> Result<ClientKey, Failure> {
        self.open_key(OpenKey::new(uri).spki(ByteBuf::from(spki)))
    }

    fn open_key(&self, request: OpenKey) -> Result<ClientKey, Failure> {
        let request = request.pin(self.pin.clone());
        let uri = request.uri.clone();
        let told = self.client.open_key(request).map_err(failure)?;
        Ok(ClientKey {
            client: self.clone(),
            uri,
            told,
        })
    }

    /// `ListTokens`.
    pub fn list_tokens(&self) -> Vec<TokenEntry> {
        self.client.list_tokens().unwrap().tokens
    }

    /// The only token of this label.
    pub fn token(&self, label: &str) -> TokenEntry {
        let mut tokens = self.list_tokens();
        tokens.retain(|token| token.label == label);
        assert_eq!(tokens.len(), 1, "{tokens:?}");
        tokens.remove(0)
    }

    /// `ListKeys`.
    pub fn list_keys(&self, uri: &str) -> Result<Vec<ObjectEntry>, Failure> {
        let request = ListKeys::new(uri).pin(self.pin.clone());
        Ok(self.client.list_keys(request).map_err(failure)?.objects)
    }

    /// `GetPublicKey`.
    pub fn get_public_key(&self, uri: &str) -> Result<PublicKeyEntry, Failure> {
        let request = GetPublicKey::new(uri).pin(self.pin.clone());
        self.client.get_public_key(request).map_err(failure)
    }

    /// `GetCertificates`.
    pub fn get_certificates(&self, uri: &str) -> Result<Vec<CertificateEntry>, Failure> {
        let request = GetCertificates::new(uri).pin(self.pin.clone());
        let listing = self.client.get_certificates(request).map_err(failure)?;
        Ok(listing.certificates)
    }

    /// `ImportCertificate`; the certificate's URI.
    pub fn import_certificate(&self, uri: &str, der: &[u8]) -> Result<String, Failure> {
        let request = ImportCertificate::new(uri, der.to_vec()).pin(self.pin.clone());
        Ok(self
            .client
            .import_certificate(request)
            .map_err(failure)?
            .uri)
    }

    /// `CreateKey`.
    pub fn create_key(
        &self,
        uri: &str,
        key: KeySpec,
        label: &str,
        id: Option<&[u8]>,
    ) -> Result<PublicKeyEntry, Failure> {
        let request = CreateKey::new(uri, key, label)
            .pin(self.pin.clone())
            .id(id.map(ByteBuf::from));
        self.client.create_key(request).map_err(failure)
    }

    /// `DeleteKey`; the URIs of what was deleted.
    pub fn delete_key(&self, uri: &str) -> Result<Vec<String>, Failure> {
        let request = DeleteKey::new(uri).pin(self.pin.clone());
        Ok(self.client.delete_key(request).map_err(failure)?.deleted)
    }

    /// `DeleteCertificate`; the URIs of what was deleted.
    pub fn delete_certificate(&self, request: DeleteCertificate) -> Result<Vec<String>, Failure> {
        let request = request.pin(self.pin.clone());
        let deleted = self.client.delete_certificate(request).map_err(failure)?;
        Ok(deleted.deleted)
    }

    /// `InitToken`.
    pub fn init_token(&self, request: InitToken) -> Result<TokenReady, Failure> {
        self.client.init_token(request).map_err(failure)
    }

    /// `ChangePin`.
    pub fn change_pin(&self, request: ChangePin) -> Result<PinChanged, Failure> {
        self.client.change_pin(request).map_err(failure)
    }

    /// What the server says of itself.
    pub fn status(&self) -> Status {
        match self.ask(&Request::Status(GetStatus::default())) {
            Response::Status(status) => status,
            other => panic!("no status but {other:?}"),
        }
    }

    /// One request on a connection of its own, sent once.
    pub fn ask(&self, request: &Request) -> Response {
        let mut raw = RawClient::with_preamble(&self.socket);
        raw.ask(request).expect("an answer")
    }
}

/// A key as a client knows it.
#[derive(Clone)]
pub struct ClientKey {
    client: TestClient,
    uri: p11_proto::UriText,
    told: OpenedKey,
}

impl ClientKey {
    /// What the server told of it.
    pub fn told(&self) -> &OpenedKey {
        &self.told
    }

    /// Has a new message signed with the first scheme, and the signature verified against the public
    /// key that the server told when the key was opened.
    pub fn sign(&self) -> Result<(), Failure> {
        self.sign_with(self.told.schemes[0])
    }

    /// The same with a scheme.
    pub fn sign_with(&self, scheme: u16) -> Result<(), Failure> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let message = format!("message {}", NUMBER.fetch_add(1, Ordering::Relaxed)).into_bytes();
        let signature = self.signature(scheme, &message)?;
        assert!(
            verifies(&self.told.spki, scheme, &message, &signature),
            "a signature of another key or message: {}, {scheme:#06x}",
            self.told.uri
        );
        Ok(())
    }

    /// The signature of a message with a scheme.
    pub fn signature(&self, scheme: u16, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let request = self.request(scheme, message);
        self.client.client.sign(request).map_err(failure)
    }

    /// The request for it.
    pub fn request(&self, scheme: u16, message: &[u8]) -> Sign {
        Sign::new(
            self.uri.clone(),
            scheme,
            message.to_vec(),
            self.told.identity,
        )
        .pin(self.client.pin.clone())
    }
}

/// The failure in a result; panics if it is of another kind, or none.
#[track_caller]
pub fn refused<T>(result: Result<T, Failure>, code: ErrorCode) -> Failure {
    match result {
        Err(failure) if failure.code == code => failure,
        Err(other) => panic!("{code} was due, not {}: {other}", other.code),
        Ok(_) => panic!("{code} was due, and the request succeeded"),
    }
}

/// What the server answered; panics where it did not answer.
#[track_caller]
fn failure(error: p11_client::Error) -> Failure {
    match error {
        p11_client::Error::Server(failure) => failure,
        other => panic!("the server did not answer: {other}"),
    }
}
