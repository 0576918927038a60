//! Configurations of rustls, for a client or a server whose key is in the token.

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::ResolvesServerCert;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::Error;
use crate::renewing_resolver::RenewingResolver;
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
        let resolver = Resolver::new(chain, self.clone())?;
        client_config(provider.into(), roots.into(), Arc::new(resolver))
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
        let resolver = Resolver::new(chain, self.clone())?;
        server_config(provider.into(), Arc::new(resolver))
    }
}

impl RenewingResolver {
    /// A client as that of [`SigningKey::client_config`], with the certificate and key as they are at each handshake.
    ///
    /// It resumes no session: each connection is a full handshake, and costs one signature. The peer knows a session by the
    /// certificate that it was begun with, and rustls does not tell which that was, so a renewal could not end it. For the
    /// same reason a client that is built by hand wants [`Resumption::disabled`].
    ///
    /// # Errors
    /// [`Error::NoCryptoProvider`], [`Error::Tls`].
    pub fn client_config(
        &self,
        provider: impl Into<Option<Arc<CryptoProvider>>>,
        roots: impl Into<Arc<RootCertStore>>,
    ) -> Result<ClientConfig, Error> {
        let mut config = client_config(provider.into(), roots.into(), Arc::new(self.clone()))?;
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// A server as that of [`SigningKey::server_config`], with the certificate and key as they are at each handshake.
    ///
    /// # Errors
    /// As [`RenewingResolver::client_config`].
    pub fn server_config(
        &self,
        provider: impl Into<Option<Arc<CryptoProvider>>>,
    ) -> Result<ServerConfig, Error> {
        server_config(provider.into(), Arc::new(self.clone()))
    }
}

fn client_config(
    provider: Option<Arc<CryptoProvider>>,
    roots: Arc<RootCertStore>,
    resolver: Arc<dyn ResolvesClientCert>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(installed_or(provider)?);
    let builder = builder.with_safe_default_protocol_versions();
    Ok(builder
        .map_err(Error::Tls)?
        .with_root_certificates(roots)
        .with_client_cert_resolver(resolver))
}

fn server_config(
    provider: Option<Arc<CryptoProvider>>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(installed_or(provider)?);
    let builder = builder.with_safe_default_protocol_versions();
    Ok(builder
        .map_err(Error::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(resolver))
}

fn installed_or(provider: Option<Arc<CryptoProvider>>) -> Result<Arc<CryptoProvider>, Error> {
    provider
        .or_else(|| CryptoProvider::get_default().cloned())
        .ok_or(Error::NoCryptoProvider)
}
