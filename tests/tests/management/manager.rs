//! The requests that list and change tokens, in few words: what a test wants goes in, the answer
//! or the server's failure comes out.

use std::path::Path;

use p11_client::{
    Client, Config, Failure, Pin,
    message::{
        CertificateEntry, ChangePin, CreateKey, DeleteKey, GetCertificates, GetPublicKey,
        ImportCertificate, InitToken, KeySpec, KeyType, ListKeys, ObjectEntry, PinChanged,
        PublicKeyEntry, TokenEntry, TokenReady,
    },
};
use p11_tests::{fixture::failure, server::Server};

/// A P-256 key, where the kind does not matter.
pub const P256: KeySpec = KeySpec::new(KeyType::Ec, 256);

/// A program that manages tokens. It sends no PIN unless it is told to.
pub struct Manager {
    client: Client,
    pin: Option<Pin>,
}

impl Manager {
    /// Of a server.
    pub fn of(server: &Server) -> Self {
        Self::at(server.socket())
    }

    /// Of what listens on this socket.
    pub fn at(socket: &Path) -> Self {
        Self {
            client: Client::new(Config::new(socket)),
            pin: None,
        }
    }

    /// The same, who sends a PIN with every request that has a place for one.
    pub fn with_pin(self, pin: &str) -> Self {
        let pin = Some(pin.into());
        Self { pin, ..self }
    }

    pub fn tokens(&self) -> Vec<TokenEntry> {
        self.client.list_tokens().unwrap().tokens
    }

    /// The only token of this label.
    pub fn token(&self, label: &str) -> TokenEntry {
        let mut tokens = self.tokens();
        tokens.retain(|token| token.label == label);
        assert_eq!(tokens.len(), 1, "{tokens:?}");
        tokens.remove(0)
    }

    pub fn keys(&self, uri: &str) -> Result<Vec<ObjectEntry>, Failure> {
        let pin = self.pin.clone();
        let listed = self.client.list_keys(ListKeys::new(uri).pin(pin));
        Ok(listed.map_err(failure)?.objects)
    }

    pub fn public_key(&self, uri: &str) -> Result<PublicKeyEntry, Failure> {
        let pin = self.pin.clone();
        let public = self.client.get_public_key(GetPublicKey::new(uri).pin(pin));
        public.map_err(failure)
    }

    pub fn certificates(&self, uri: &str) -> Result<Vec<CertificateEntry>, Failure> {
        let pin = self.pin.clone();
        let found = self
            .client
            .get_certificates(GetCertificates::new(uri).pin(pin));
        Ok(found.map_err(failure)?.certificates)
    }

    pub fn import(&self, uri: &str, der: &[u8]) -> Result<String, Failure> {
        let imported = self
            .client
            .import_certificate(ImportCertificate::new(uri, der.to_vec()).pin(self.pin.clone()));
        Ok(imported.map_err(failure)?.uri)
    }

    pub fn create(
        &self,
        uri: &str,
        key: KeySpec,
        label: &str,
        id: Option<&[u8]>,
    ) -> Result<PublicKeyEntry, Failure> {
        let made = self.client.create_key(
            CreateKey::new(uri, key, label)
                .pin(self.pin.clone())
                .id(id.map(|id| id.to_vec().into())),
        );
        made.map_err(failure)
    }

    pub fn delete(&self, uri: &str) -> Result<Vec<String>, Failure> {
        let pin = self.pin.clone();
        let deleted = self.client.delete_key(DeleteKey::new(uri).pin(pin));
        Ok(deleted.map_err(failure)?.deleted)
    }

    pub fn init(&self, request: InitToken) -> Result<TokenReady, Failure> {
        self.client.init_token(request).map_err(failure)
    }

    pub fn change_pin(&self, request: ChangePin) -> Result<PinChanged, Failure> {
        self.client.change_pin(request).map_err(failure)
    }
}

/// A request to make a token of this label, in whatever slot, with the configured PIN.
pub fn token(label: &str) -> InitToken {
    InitToken::new(label)
}

/// A request for a new PIN on the only token, by the configured one.
pub fn pin(new: &str) -> ChangePin {
    ChangePin::new(new)
}
