//! Keys in tokens for libraries that take a key in a PEM file only.

use std::sync::Arc;

use p11_proto::KeyReference;
use rustls::OtherError;
use rustls::crypto::{CryptoProvider, KeyProvider as RustlsKeyProvider};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

use crate::client::Client;
use crate::error::Error;
use crate::lazy_key::LazyKey;

/// A [`rustls::crypto::KeyProvider`] to which a [`KeyReference`] is a key.
///
/// A library that takes a PEM of a private key gets [`KeyReference::to_pem`] in its place. Loading one asks nobody: the key
/// is opened by the first handshake, as a [`LazyKey`] whose certificate is not known here. All other keys are loaded by the provider beneath.
#[derive(Debug)]
pub struct KeyProvider {
    beneath: &'static dyn RustlsKeyProvider,
    client: Client,
}

impl KeyProvider {
    /// For a [`CryptoProvider`] that is put together by hand: rustls wants a `&'static` of it.
    pub fn new(beneath: &'static dyn RustlsKeyProvider, client: Client) -> Self {
        KeyProvider { beneath, client }
    }

    /// This crypto provider, with keys in tokens too. Goes into a configuration, or is installed as the default:
    ///
    /// ```no_run
    /// use p11_client::{Client, Config, KeyProvider};
    ///
    /// let client = Client::new(Config::default());
    /// let provider = KeyProvider::over(rustls::crypto::ring::default_provider(), client);
    /// provider.install_default().expect("no other is installed yet");
    /// ```
    ///
    /// To be called once or a few times: what it makes lasts until the program ends.
    pub fn over(provider: CryptoProvider, client: Client) -> CryptoProvider {
        let beneath = provider.key_provider;
        CryptoProvider {
            key_provider: Box::leak(Box::new(KeyProvider::new(beneath, client))),
            ..provider
        }
    }
}

impl RustlsKeyProvider for KeyProvider {
    fn load_private_key(
        &self,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        let reference = match &key {
            PrivateKeyDer::Pkcs8(der) => KeyReference::from_pkcs8(der.secret_pkcs8_der()),
            _ => Ok(None),
        };
        let other = |error| OtherError(Arc::new(error));
        match reference
            .map_err(Error::malformed_reference)
            .map_err(other)?
        {
            Some(reference) => {
                let key = LazyKey::from_reference(&self.client, &reference).map_err(other)?;
                Ok(key.into())
            }
            None => self.beneath.load_private_key(key),
        }
    }
}
