//! A rustls certificate resolver: a certificate chain with the key in the token.

use std::sync::Arc;

use p11_proto::Identity;
use p11_proto::spki::PublicKey;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::error::Error;
use crate::signing_key::SigningKey;

/// A certificate and its key, which belong together: for a [`rustls::ClientConfig`] and a [`rustls::ServerConfig`].
#[derive(Clone, Debug)]
pub struct Resolver {
    certified: Arc<CertifiedKey>,
    key: SigningKey,
}

impl Resolver {
    /// Joins a chain, the client's own certificate first, with its key.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the certificate was issued for another key, [`Error::CertificateOrder`] where another one
    /// of the chain is that of the key, [`Error::NoCertificate`] and [`Error::Certificate`].
    pub fn new(chain: Vec<CertificateDer<'static>>, key: SigningKey) -> Result<Self, Error> {
        let leaf = chain.first().ok_or(Error::NoCertificate)?;
        // rustls' own `CertifiedKey::keys_match` refuses X.509 v1 certificates.
        let certificate = PublicKey::of_certificate(leaf)
            .map_err(Error::Certificate)?
            .identity();
        if certificate != key.identity() {
            if let Some(place) = place_of(key.identity(), &chain) {
                return Err(Error::CertificateOrder {
                    uri: key.uri().to_owned(),
                    position: place + 1,
                });
            }
            return Err(Error::Mismatch {
                uri: key.uri().to_owned(),
                certificate,
                key: key.identity(),
            });
        }
        let certified = Arc::new(CertifiedKey::new(chain, Arc::new(key.clone())));
        Ok(Resolver { certified, key })
    }

    /// The key, which knows [why no certificate was sent](SigningKey::why_not_sent).
    pub fn key(&self) -> &SigningKey {
        &self.key
    }
}

/// Which certificate of a chain is that of a key.
pub(crate) fn place_of(key: Identity, chain: &[CertificateDer<'_>]) -> Option<usize> {
    let is_its = |certificate: &CertificateDer<'_>| {
        PublicKey::of_certificate(certificate).is_ok_and(|public| public.identity() == key)
    };
    chain.iter().position(is_its)
}

impl ResolvesClientCert for Resolver {
    /// The one certificate, whatever the peer accepts: if it offers no scheme of the key, the
    /// [`SigningKey`] logs a warning.
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _offered: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.clone())
    }
}
