//! A rustls certificate resolver: a certificate chain with the key in the token.

use std::sync::Arc;

use p11_proto::spki::PublicKey;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use crate::error::Error;
use crate::signing_key::SigningKey;

/// Client authentication for [`rustls::ClientConfig`], whose certificate and key belong together.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<CertifiedKey>);

impl Resolver {
    /// Joins a chain, the client's own certificate first, with its key.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the certificate was issued for another key,
    /// [`Error::NoCertificate`] and [`Error::Certificate`].
    pub fn new(chain: Vec<CertificateDer<'static>>, key: SigningKey) -> Result<Self, Error> {
        let leaf = chain.first().ok_or(Error::NoCertificate)?;
        // rustls' own `CertifiedKey::keys_match` refuses X.509 v1 certificates.
        let certificate = PublicKey::of_certificate(leaf)
            .map_err(Error::Certificate)?
            .identity();
        if certificate != key.identity() {
            return Err(Error::Mismatch {
                uri: key.uri().to_owned(),
                certificate,
                key: key.identity(),
            });
        }
        Ok(Resolver(Arc::new(CertifiedKey::new(chain, Arc::new(key)))))
    }
}

impl ResolvesClientCert for Resolver {
    /// The one certificate, whatever the peer accepts: if it offers no scheme of the key, the
    /// [`SigningKey`] logs a warning.
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _offered: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
