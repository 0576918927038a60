//! A rustls signing key that is opened by the first handshake.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use p11_proto::spki::PublicKey;
use p11_proto::{KeyReference, Pin};
use p11_uri::Uri;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{SignatureAlgorithm, SignatureScheme, sign};

use crate::client::Client;
use crate::error::Error;
use crate::per_process::{Inherit, PerProcess};
use crate::signing_key::{KeySource, SigningKey, algorithm};
use crate::unusable_key::UnusableKey;

/// One handshake asks a key two or three times: a failure is not waited for in each.
const FAILED_JUST_NOW: Duration = Duration::from_millis(200);

/// A private key in a token that is looked for by the first handshake: a program can start before the server does.
///
/// It goes into a [`Resolver`](crate::Resolver), which tells it the certificate, or wherever rustls takes a key. If it cannot be
/// opened, that handshake fails with the reason (see [`Error::in_handshake`]), and the next one tries again.
///
/// With a certificate it is the key of that certificate. Without, it is the first that the URI leads to, and stays that one: of
/// several keys name the right one, since nobody but the peer finds out that its certificate is another's.
#[derive(Clone, Debug)]
pub struct LazyKey(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: KeySource,
    certificate: Option<(CertificateDer<'static>, PublicKey)>,
    state: PerProcess<State>,
}

/// Held by the one who opens the key.
#[derive(Debug, Default)]
struct State(Mutex<Opening>);

#[derive(Debug, Default)]
enum Opening {
    #[default]
    Closed,
    Opened(SigningKey),
    Failed(Instant, Arc<Error>),
}

impl LazyKey {
    /// The key that [`SigningKey::open`] will find. Asks nobody yet.
    ///
    /// # Errors
    /// [`Error::Certificate`] for a certificate that cannot be read.
    pub fn new(
        client: &Client,
        uri: &str,
        pin: Option<Pin>,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Result<Self, Error> {
        let source = KeySource::new(client, uri, pin);
        LazyKey::of(source, certificate)
    }

    /// The key that a PEM file refers to: see [`KeyReference`], of which it takes both forms. Asks nobody yet.
    ///
    /// # Errors
    /// [`Error::KeyReference`] where there is no reference in it, or a malformed one.
    pub fn from_pem(client: &Client, pem: &str) -> Result<Self, Error> {
        let reference = KeyReference::from_pem(pem).map_err(Error::malformed_reference)?;
        LazyKey::from_reference(client, &reference)
    }

    /// The key of a reference. Asks nobody yet.
    ///
    /// # Errors
    /// [`Error::KeyReference`] for one whose URI is malformed.
    pub fn from_reference(client: &Client, reference: &KeyReference) -> Result<Self, Error> {
        Uri::parse(reference.uri()).map_err(Error::malformed_reference)?;
        LazyKey::new(client, reference.uri(), None, None)
    }

    fn of(source: KeySource, certificate: Option<&CertificateDer<'_>>) -> Result<Self, Error> {
        let with_key = |certificate: &CertificateDer<'_>| {
            let public = PublicKey::of_certificate(certificate).map_err(Error::Certificate)?;
            Ok::<_, Error>((certificate.clone().into_owned(), public))
        };
        Ok(LazyKey(Arc::new(Inner {
            source,
            certificate: certificate.map(with_key).transpose()?,
            state: PerProcess::default(),
        })))
    }

    /// The same key where it has a certificate, else that of this one.
    pub(crate) fn or_of(self, certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        match self.0.certificate {
            Some(_) => Ok(self),
            None => LazyKey::of(self.0.source.clone(), Some(certificate)),
        }
    }

    /// The key itself, which is opened if it was not yet.
    ///
    /// # Errors
    /// Those of [`SigningKey::open`].
    pub fn open(&self) -> Result<SigningKey, Arc<Error>> {
        let came = Instant::now();
        let mut opening = self.0.state.get().lock();
        match &*opening {
            Opening::Opened(key) => return Ok(key.clone()),
            // While this thread waited, or a moment before.
            Opening::Failed(when, error) if *when + FAILED_JUST_NOW > came => {
                return Err(error.clone());
            }
            Opening::Failed(..) | Opening::Closed => {}
        }
        let certificate = self.0.certificate.as_ref();
        let opened = self.0.source.open(certificate.map(|(leaf, _)| leaf), None);
        let opened = opened.map_err(Arc::new);
        *opening = match &opened {
            Ok(key) => Opening::Opened(key.clone()),
            Err(error) => Opening::Failed(Instant::now(), error.clone()),
        };
        opened
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Opening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inherit for State {
    fn inherit(&self) -> Self {
        let opening = match self.0.try_lock().as_deref() {
            Ok(Opening::Opened(key)) => Opening::Opened(key.clone()),
            _ => Opening::Closed,
        };
        State(Mutex::new(opening))
    }
}

/// What [`crate::Resolver`] and rustls take.
impl From<LazyKey> for Arc<dyn sign::SigningKey> {
    fn from(key: LazyKey) -> Self {
        Arc::new(key)
    }
}

impl sign::SigningKey for LazyKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        match self.open() {
            Ok(key) => Some(Box::new(LazySigner {
                signer: key.choose_scheme(offered)?,
                key: self.clone(),
            })),
            Err(error) => {
                tracing::warn!("the handshake fails, since its key cannot be opened: {error}");
                let algorithm = SignatureAlgorithm::ECDSA;
                UnusableKey { error, algorithm }.choose_scheme(offered)
            }
        }
    }

    /// That of the certificate: the key must be its.
    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let (_, public) = self.0.certificate.as_ref()?;
        Some(SubjectPublicKeyInfoDer::from(public.spki()))
    }

    /// Of the certificate, or else of the key: a server of TLS 1.2 has to know.
    fn algorithm(&self) -> SignatureAlgorithm {
        match &self.0.certificate {
            Some((_, public)) => algorithm(public.kind()).unwrap_or(SignatureAlgorithm::ECDSA),
            None => self
                .open()
                .map_or(SignatureAlgorithm::ECDSA, |key| key.algorithm()),
        }
    }
}

#[derive(Debug)]
struct LazySigner {
    signer: Box<dyn sign::Signer>,
    key: LazyKey,
}

impl sign::Signer for LazySigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.signer.sign(message).inspect_err(|error| {
            let is_changed = Error::in_handshake(error).is_some_and(Error::is_key_changed);
            // Without a certificate the new key would be believed to be that of the old chain.
            if is_changed && self.key.0.certificate.is_some() {
                *self.key.0.state.get().lock() = Opening::Closed;
            }
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.signer.scheme()
    }
}
