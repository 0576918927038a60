//! Configurations of rustls, for a client or a server whose key is in the token.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::Error;
use crate::resolver::Resolver;
use crate::signing_key::SigningKey;

impl SigningKey {
    /// A client that trusts these roots and proves itself with this key, in TLS 1.3 and 1.2.
    ///
    /// `chain` is its certificate and those of its issuers, its own first. Without a provider it is the one that the
    /// program has installed as rustls' default.
    ///
    /// # Errors
    /// [`Error::NoCryptoProvider`] where none is installed: unlike [`ClientConfig::builder`] this never panics, as that
    /// does in a program with both ring and aws-lc-rs. Those of [`Resolver::new`], [`Error::Tls`].
    pub fn client_config(
        &self,
        provider: impl Into<Option<Arc<CryptoProvider>>>,
        roots: impl Into<Arc<RootCertStore>>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<ClientConfig, Error> {
        let resolver = Arc::new(Resolver::new(chain, self.clone())?);
        let builder = ClientConfig::builder_with_provider(installed_or(provider.into())?);
        let builder = builder.with_safe_default_protocol_versions();
        Ok(builder
            .map_err(Error::Tls)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(resolver))
    }

    /// A server that proves itself with this key, in TLS 1.3 and 1.2, and asks clients for no certificate.
    ///
    /// One that asks for them is built with [`ServerConfig::builder_with_provider`] and a [`Resolver`].
    ///
    /// # Errors
    /// As [`SigningKey::client_config`].
    pub fn server_config(
        &self,
        provider: impl Into<Option<Arc<CryptoProvider>>>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<ServerConfig, Error> {
        let resolver = Arc::new(Resolver::new(chain, self.clone())?);
        let builder = ServerConfig::builder_with_provider(installed_or(provider.into())?);
        let builder = builder.with_safe_default_protocol_versions();
        Ok(builder
            .map_err(Error::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(resolver))
    }
}

fn installed_or(provider: Option<Arc<CryptoProvider>>) -> Result<Arc<CryptoProvider>, Error> {
    provider
        .or_else(|| CryptoProvider::get_default().cloned())
        .ok_or(Error::NoCryptoProvider)
}
