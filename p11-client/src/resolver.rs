//! A rustls certificate resolver: certificate chains with their keys, of which the peer's offer chooses one.

use std::any::Any;
use std::sync::Arc;

use p11_proto::spki::{Certificate, Curve, Kind, PublicKey};
use p11_proto::{Identity, Scheme};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey as RustlsKey};
use rustls::{DistinguishedName, SignatureScheme};

use crate::error::Error;
use crate::lazy_key::LazyKey;
use crate::refused::Refused;
use crate::signing_key::SigningKey;

/// Certificates and keys that belong together: for a [`rustls::ClientConfig`] and a [`rustls::ServerConfig`].
///
/// A key is a [`SigningKey`], a [`LazyKey`], or any other of rustls', in a token or not. With several pairs it is the first whose
/// key can be opened and can sign what the peer takes, if possible one that was issued by an authority that the peer names:
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
    refused: Arc<Refused>,
}

#[derive(Clone, Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    key: Key,
    is_on_p521: bool,
}

/// Ours tell their schemes without a line in the log.
#[derive(Clone, Debug)]
enum Key {
    Opened(SigningKey),
    Lazy(LazyKey),
    Other,
}

/// Which side of a connection the key is for.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Server,
}

impl Resolver {
    /// Joins a chain, the own certificate first, with its key.
    ///
    /// Of a key that does not tell its public half it is believed that the certificate is its. A [`LazyKey`] without a
    /// certificate gets this one.
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
        let offered = self.refused.get()?;
        Some(self.pairs.first()?.no_common_scheme(&offered))
    }

    /// The pair for a peer that takes these schemes, and maybe names the authorities whose certificates it takes.
    fn choose<'a>(
        &self,
        side: Side,
        offered: &[SignatureScheme],
        issuers: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Option<Arc<CertifiedKey>> {
        let is_any_wanted = issuers.clone().next().is_none();
        // rustls has no P-521 for key exchange, so in TLS 1.2 OpenSSL takes no certificate on it (RFC 8422 section 5.1).
        let is_p521_doubtful = side == Side::Client && offered.iter().any(is_of_tls12);
        let (mut usable, mut doubtful, mut closed) = (None, None, None);
        let mut wanted = None;
        for pair in &self.pairs {
            match pair.can_sign(offered) {
                Ok(false) => {}
                Ok(true) if is_p521_doubtful && pair.is_on_p521 => {
                    doubtful = doubtful.or(Some(pair))
                }
                Ok(true) if is_any_wanted || pair.is_issued_by(issuers.clone()) => {
                    wanted = Some(pair);
                    break;
                }
                Ok(true) => usable = usable.or(Some(pair)),
                Err(error) => closed = closed.or(Some((pair, error))),
            }
        }
        let good = wanted.or(usable);
        match (good.or(doubtful), &closed) {
            (Some(_), Some((_, error))) => {
                tracing::warn!("another key is used, since one cannot be opened: {error}");
            }
            (None, None) => self.warn_of_refusal(offered),
            _ => {}
        }
        if good.is_none() && doubtful.is_some() {
            tracing::warn!(
                "the key is on P-521 and this is TLS 1.2: a peer that refuses the certificate as an illegal parameter wants \
                 TLS 1.3, or a key on P-256 or P-384"
            );
        }
        let chosen = good.or(doubtful).or(closed.map(|(pair, _)| pair));
        self.refused.set(chosen.is_none().then(|| offered.to_vec()));
        // One that is refused lets rustls go on without a certificate.
        let pair = chosen.or(self.pairs.first());
        pair.map(|pair| pair.certified.clone())
    }

    /// Each key says why. The first does when rustls asks it, if it is one of ours.
    fn warn_of_refusal(&self, offered: &[SignatureScheme]) {
        for (place, pair) in self.pairs.iter().enumerate() {
            if place > 0 || matches!(pair.key, Key::Other) {
                tracing::warn!("{}", pair.no_common_scheme(offered));
            }
        }
    }
}

/// A scheme that only TLS 1.2 has in a request for a certificate: there rustls leaves out of TLS 1.3 what it has not.
fn is_of_tls12(scheme: &SignatureScheme) -> bool {
    matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
            | SignatureScheme::RSA_PKCS1_SHA1
            | SignatureScheme::ECDSA_SHA1_Legacy
    )
}

impl Pair {
    fn new<K>(chain: Vec<CertificateDer<'static>>, key: K) -> Result<Self, Error>
    where
        K: Into<Arc<dyn RustlsKey>> + 'static,
    {
        let leaf = chain.first().ok_or(Error::NoCertificate)?;
        // rustls' own `CertifiedKey::keys_match` refuses X.509 v1 certificates.
        let public = PublicKey::of_certificate(leaf).map_err(Error::Certificate)?;
        let any = &key as &dyn Any;
        let (ours, key): (Key, Arc<dyn RustlsKey>) =
            if let Some(opened) = any.downcast_ref::<SigningKey>() {
                (Key::Opened(opened.clone()), key.into())
            } else if let Some(lazy) = any.downcast_ref::<LazyKey>() {
                let lazy = lazy.clone().or_of(leaf)?;
                (Key::Lazy(lazy.clone()), lazy.into())
            } else {
                (Key::Other, key.into())
            };
        ours.check(&*key, public.identity(), &chain)?;
        Ok(Pair {
            certified: Arc::new(CertifiedKey::new(chain, key)),
            key: ours,
            is_on_p521: public.kind() == Kind::Ec(Curve::P521),
        })
    }

    /// The error of a key that cannot be opened.
    fn can_sign(&self, offered: &[SignatureScheme]) -> Result<bool, Arc<Error>> {
        let can = |key: &SigningKey| key.schemes().iter().any(|scheme| offered.contains(scheme));
        match &self.key {
            Key::Opened(key) => Ok(can(key)),
            Key::Lazy(key) => key.open().map(|key| can(&key)),
            Key::Other => Ok(self.certified.key.choose_scheme(offered).is_some()),
        }
    }

    fn no_common_scheme(&self, offered: &[SignatureScheme]) -> Error {
        let of_ours = match &self.key {
            Key::Opened(key) => Some(key.no_common_scheme(offered)),
            Key::Lazy(key) => key.open().ok().map(|key| key.no_common_scheme(offered)),
            Key::Other => None,
        };
        let can = |scheme: &SignatureScheme| self.certified.key.choose_scheme(&[*scheme]).is_some();
        of_ours.unwrap_or_else(|| Error::NoCommonScheme {
            uri: None,
            offered: offered.to_vec(),
            available: Scheme::ALL
                .iter()
                .map(|scheme| scheme.number().into())
                .filter(can)
                .collect(),
        })
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

impl Key {
    /// Whether this is the key of the chain's first certificate, as far as it tells.
    fn check(
        &self,
        key: &dyn RustlsKey,
        certificate: Identity,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let public = key.public_key().map(|spki| Identity::of(&spki));
        let Some(key) = public.transpose().map_err(Error::Certificate)? else {
            return Ok(());
        };
        if key == certificate {
            return Ok(());
        }
        let uri = match self {
            Key::Opened(key) => Some(key.uri().to_owned()),
            _ => None,
        };
        Err(match place_of(key, chain) {
            Some(place) => Error::CertificateOrder {
                uri,
                position: place + 1,
            },
            None => Error::Mismatch {
                uri,
                certificate,
                key,
            },
        })
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
        self.choose(Side::Client, offered, issuers.iter().copied())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let issuers = hello.certificate_authorities().unwrap_or_default();
        let issuers = issuers.iter().map(DistinguishedName::as_ref);
        self.choose(Side::Server, hello.signature_schemes(), issuers)
    }
}
