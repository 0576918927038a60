//! A rustls certificate resolver: certificate chains with their keys, of which the peer's offer chooses one.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use p11_proto::Identity;
use p11_proto::spki::{Certificate, PublicKey};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey as RustlsKey};
use rustls::{DistinguishedName, SignatureScheme};

use crate::error::Error;
use crate::signing_key::SigningKey;

/// Certificates and keys that belong together: for a [`rustls::ClientConfig`] and a [`rustls::ServerConfig`].
///
/// A key is a [`SigningKey`], or any other of rustls', in a token or not. With several pairs it is the first whose key can sign
/// what the peer takes, if possible one that was issued by an authority that the peer names:
///
/// ```no_run
/// # use p11_client::{Resolver, SigningKey, rustls::pki_types::CertificateDer};
/// # fn resolver(
/// #     ec: SigningKey, ec_chain: Vec<CertificateDer<'static>>, rsa: SigningKey, rsa_chain: Vec<CertificateDer<'static>>,
/// # ) -> Result<Resolver, p11_client::Error> {
/// Resolver::new(ec_chain, ec)?.and(rsa_chain, rsa)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Resolver {
    /// One at least.
    pairs: Vec<Pair>,
    /// Whether the last peer took no scheme of any key.
    refused: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    /// The key, if it is one of ours, which tells its schemes without a line in the log.
    ours: Option<SigningKey>,
}

impl Resolver {
    /// Joins a chain, the own certificate first, with its key.
    ///
    /// Of a key that does not tell its public half it is believed that the certificate is its.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the certificate was issued for another key, [`Error::CertificateOrder`] where another one
    /// of the chain is that of the key, [`Error::NoCertificate`] and [`Error::Certificate`].
    pub fn new<K>(chain: Vec<CertificateDer<'static>>, key: K) -> Result<Self, Error>
    where
        K: Into<Arc<dyn RustlsKey>> + 'static,
    {
        Ok(Resolver {
            pairs: vec![Pair::new(chain, key)?],
            refused: Arc::default(),
        })
    }

    /// The same with another chain and key, for peers that take none of those before.
    ///
    /// # Errors
    /// As [`Resolver::new`].
    pub fn and<K>(mut self, chain: Vec<CertificateDer<'static>>, key: K) -> Result<Self, Error>
    where
        K: Into<Arc<dyn RustlsKey>> + 'static,
    {
        self.pairs.push(Pair::new(chain, key)?);
        Ok(self)
    }

    /// Why no certificate was sent in the last handshake, if none was: see [`SigningKey::why_not_sent`]. With several keys
    /// that of the first, the log has all.
    pub fn why_not_sent(&self) -> Option<Error> {
        if self.pairs.len() > 1 && !self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let mut ours = self.pairs.iter().filter_map(|pair| pair.ours.as_ref());
        ours.find_map(SigningKey::why_not_sent)
    }

    /// The pair for a peer that takes these schemes, and maybe names the authorities whose certificates it takes.
    fn choose<'a>(
        &self,
        offered: &[SignatureScheme],
        issuers: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Option<Arc<CertifiedKey>> {
        let pair = match self.pairs.as_slice() {
            [only] => Some(only),
            several => {
                let usable = || several.iter().filter(|pair| pair.can_sign(offered));
                let wanted = usable().find(|pair| pair.is_issued_by(issuers.clone()));
                let chosen = wanted.or_else(|| usable().next());
                self.refused.store(chosen.is_none(), Ordering::Relaxed);
                if chosen.is_none() {
                    // Each says why. The first does when rustls asks it.
                    for pair in several.iter().skip(1) {
                        pair.certified.key.choose_scheme(offered);
                    }
                }
                chosen.or_else(|| several.first())
            }
        };
        pair.map(|pair| pair.certified.clone())
    }
}

impl Pair {
    fn new<K>(chain: Vec<CertificateDer<'static>>, key: K) -> Result<Self, Error>
    where
        K: Into<Arc<dyn RustlsKey>> + 'static,
    {
        let ours = (&key as &dyn Any).downcast_ref::<SigningKey>().cloned();
        let key = key.into();
        let leaf = chain.first().ok_or(Error::NoCertificate)?;
        // rustls' own `CertifiedKey::keys_match` refuses X.509 v1 certificates.
        let certificate = PublicKey::of_certificate(leaf)
            .map_err(Error::Certificate)?
            .identity();
        let public = key.public_key().map(|spki| Identity::of(&spki));
        let identity = public.transpose().map_err(Error::Certificate)?;
        if let Some(key) = identity
            && key != certificate
        {
            let uri = ours.map(|key| key.uri().to_owned());
            return Err(match place_of(key, &chain) {
                Some(place) => Error::CertificateOrder {
                    uri,
                    position: place + 1,
                },
                None => Error::Mismatch {
                    uri,
                    certificate,
                    key,
                },
            });
        }
        let certified = Arc::new(CertifiedKey::new(chain, key));
        Ok(Pair { certified, ours })
    }

    fn can_sign(&self, offered: &[SignatureScheme]) -> bool {
        match &self.ours {
            Some(key) => key.schemes().iter().any(|scheme| offered.contains(scheme)),
            None => self.certified.key.choose_scheme(offered).is_some(),
        }
    }

    /// Whether its chain leads to one of these authorities.
    fn is_issued_by<'a>(&self, mut issuers: impl Iterator<Item = &'a [u8]>) -> bool {
        let chain = self.certified.cert.iter();
        let names: Vec<_> = chain
            .filter_map(|certificate| Some(Certificate::parse(certificate).ok()?.issuer))
            .collect();
        issuers.any(|issuer| names.contains(&issuer))
    }
}

/// Which certificate of a chain is that of a key.
fn place_of(key: Identity, chain: &[CertificateDer<'_>]) -> Option<usize> {
    let is_its = |certificate: &CertificateDer<'_>| {
        PublicKey::of_certificate(certificate).is_ok_and(|public| public.identity() == key)
    };
    chain.iter().position(is_its)
}

impl ResolvesClientCert for Resolver {
    /// A pair in any case: if the peer takes no scheme of a key, the [`SigningKey`] logs a warning.
    fn resolve(&self, issuers: &[&[u8]], offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.choose(offered, issuers.iter().copied())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let issuers = hello.certificate_authorities().unwrap_or_default();
        let issuers = issuers.iter().map(DistinguishedName::as_ref);
        self.choose(hello.signature_schemes(), issuers)
    }
}
