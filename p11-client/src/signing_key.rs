//! A rustls signing key: one request when it is opened, then one for each signature.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p11_proto::message::{OpenKey, Sign};
use p11_proto::spki::{Kind, PublicKey};
use p11_proto::{ErrorCode, Failure, Identity, Pin, Scheme, UriText};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{OtherError, SignatureAlgorithm, SignatureScheme, sign};

use crate::client::Client;
use crate::error::Error;
use crate::refused::Refused;
use crate::uri::split_pin;

/// A private key in a token, for [`rustls::sign::CertifiedKey`].
///
/// It is the key that was found when it was opened. If the URI leads to another key later, handshakes
/// fail with `KeyChanged` (see [`Error::in_handshake`]) until a new `SigningKey` is opened. Every signature is a request
/// that blocks its thread.
#[derive(Clone, Debug)]
pub struct SigningKey(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    client: Client,
    uri: String,
    pin: Option<Pin>,
    public: PublicKey,
    identity: Identity,
    algorithm: SignatureAlgorithm,
    /// How long its signatures may be.
    lengths: RangeInclusive<usize>,
    schemes: Vec<SignatureScheme>,
    /// What the last peer has offered that took no scheme of the key.
    refused: Refused,
}

impl SigningKey {
    /// Asks the server for the key that matches an RFC 7512 URI.
    ///
    /// With a certificate it is the key of that certificate, and no other. A `pin-value` in the URI
    /// wins over `pin`; without either the server uses its own.
    ///
    /// # Errors
    /// As for any request, and [`Error::Certificate`] for a certificate that cannot be read.
    pub fn open(
        client: &Client,
        uri: &str,
        pin: Option<Pin>,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Result<SigningKey, Error> {
        KeySource::new(client, uri, pin).open(certificate, None)
    }

    /// The key of a chain of certificates, the first of which is the key's.
    ///
    /// # Errors
    /// As [`SigningKey::open`], [`Error::NoCertificate`], and [`Error::CertificateOrder`] where the token has the key of
    /// another certificate of the chain.
    pub fn open_for(
        client: &Client,
        uri: &str,
        pin: Option<Pin>,
        chain: &[CertificateDer<'_>],
    ) -> Result<SigningKey, Error> {
        KeySource::new(client, uri, pin).open_for(chain, Duration::MAX)
    }

    /// The full URI of the key, without PIN.
    pub fn uri(&self) -> &str {
        &self.0.uri
    }

    /// The SHA-256 of its public key.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Its public key: kind, `SubjectPublicKeyInfo`, and what is in it.
    pub fn public_key_info(&self) -> &PublicKey {
        &self.0.public
    }

    /// RSA: the bits of its modulus. EC: the bits of its curve's field. Ed25519: 255.
    pub fn public_key_bits(&self) -> u32 {
        self.0.public.kind().bits()
    }

    /// Its public key as a PEM of a `SubjectPublicKeyInfo` (RFC 7468 section 13).
    pub fn public_key_pem(&self) -> String {
        self.0.public.to_pem()
    }

    /// Whether the other one, of the same source, was opened with the same result.
    pub(crate) fn is_as_opened(&self, other: &SigningKey) -> bool {
        let (own, other) = (&self.0, &other.0);
        (&own.uri, own.identity, &own.schemes) == (&other.uri, other.identity, &other.schemes)
    }

    /// Signs a message, which is hashed as the scheme says. ECDSA signatures are a DER `Ecdsa-Sig-Value` (RFC 3279 section
    /// 2.2.3).
    ///
    /// # Errors
    /// Those of a request. [`Error::is_key_changed`] where this key is no more.
    pub fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign(scheme.number(), message)
    }

    /// Why no certificate was sent in the last handshake with this key: [`Error::NoCommonScheme`]. `None` where one was,
    /// or where no peer has asked for one.
    ///
    /// rustls goes on without a certificate, and the peer's alert does not tell why.
    pub fn why_not_sent(&self) -> Option<Error> {
        Some(self.no_common_scheme(&self.0.refused.get()?))
    }

    pub(crate) fn no_common_scheme(&self, offered: &[SignatureScheme]) -> Error {
        Error::NoCommonScheme {
            uri: Some(self.0.uri.clone()),
            offered: offered.to_vec(),
            available: self.0.schemes.clone(),
        }
    }

    /// The schemes that it can sign with, the preferred one first.
    pub fn schemes(&self) -> &[SignatureScheme] {
        &self.0.schemes
    }
}

/// Where a key is asked for: once, or whenever it may have changed.
#[derive(Clone, Debug)]
pub(crate) struct KeySource {
    client: Client,
    uri: UriText,
    pin: Option<Pin>,
}

impl KeySource {
    pub(crate) fn new(client: &Client, uri: &str, pin: Option<Pin>) -> Self {
        let (uri, pin) = split_pin(uri, pin);
        KeySource {
            client: client.clone(),
            uri: uri.into(),
            pin,
        }
    }

    /// As [`SigningKey::open_for`], within this time.
    pub(crate) fn open_for(
        &self,
        chain: &[CertificateDer<'_>],
        limit: Duration,
    ) -> Result<SigningKey, Error> {
        let start = Instant::now();
        let (leaf, issuers) = chain.split_first().ok_or(Error::NoCertificate)?;
        let opened = self.open(Some(leaf), Some(limit));
        let is_other_key = match &opened {
            Err(Error::Server(failure)) => failure.code == ErrorCode::KeyNotFound,
            // Of an old server, which cannot choose by the certificate.
            Err(Error::TooOld { .. }) => true,
            _ => false,
        };
        if !is_other_key {
            return opened;
        }
        for (place, issuer) in issuers.iter().enumerate() {
            let left = limit.saturating_sub(start.elapsed());
            if let Ok(key) = self.open(Some(issuer), Some(left)) {
                return Err(Error::CertificateOrder {
                    uri: Some(key.uri().to_owned()),
                    position: place + 2,
                });
            }
        }
        opened
    }

    /// One request, which may have a limit of its own: the key signs without it.
    pub(crate) fn open(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        limit: Option<Duration>,
    ) -> Result<SigningKey, Error> {
        let public = certificate.map(|certificate| PublicKey::of_certificate(certificate));
        let spki = public.transpose().map_err(Error::Certificate)?;
        let spki = spki.map(|key| key.spki().to_vec().into());
        let request = OpenKey::new(&*self.uri).pin(self.pin.clone()).spki(spki);
        let key = match limit {
            Some(limit) => self.client.clone().within(limit).open_key(request)?,
            None => self.client.open_key(request)?,
        };
        if certificate.is_none()
            && let Some(note) = &key.note
        {
            tracing::warn!(
                "no certificate says which key is meant by {:?}: {note:?}",
                self.uri
            );
        }
        let public = PublicKey::from_spki(&key.spki).map_err(Error::bad_answer)?;
        Ok(SigningKey(Arc::new(Opened {
            client: self.client.clone(),
            uri: key.uri,
            pin: self.pin.clone(),
            algorithm: algorithm(public.kind()).ok_or_else(|| {
                let kind = public.kind();
                Error::bad_answer(format_args!("it has a key of an unknown kind, {kind:?}"))
            })?,
            lengths: signature_lengths(public.kind()),
            schemes: key.schemes.into_iter().map(SignatureScheme::from).collect(),
            refused: Refused::default(),
            identity: public.identity(),
            public,
        })))
    }
}

pub(crate) fn algorithm(kind: Kind) -> Option<SignatureAlgorithm> {
    match kind {
        Kind::Rsa { .. } => Some(SignatureAlgorithm::RSA),
        Kind::Ec(_) => Some(SignatureAlgorithm::ECDSA),
        Kind::Ed25519 => Some(SignatureAlgorithm::ED25519),
        _ => None,
    }
}

/// How many bytes a signature has: RFC 8017 section 8, RFC 8032, and for ECDSA the DER of two integers (RFC 3279).
fn signature_lengths(kind: Kind) -> RangeInclusive<usize> {
    let bytes = (kind.bits() as usize).div_ceil(8);
    match kind {
        Kind::Rsa { .. } => bytes..=bytes,
        Kind::Ed25519 => 64..=64,
        // Two headers of at least two bytes each and a sequence's of two or three; a leading zero for each.
        _ => 8..=2 * (bytes + 3) + 3,
    }
}

impl Opened {
    fn sign(&self, scheme: u16, message: &[u8]) -> Result<Vec<u8>, Error> {
        let sign = || {
            let request = Sign::new(self.uri.as_str(), scheme, message.to_vec(), self.identity);
            self.client.sign(request.pin(self.pin.clone()))
        };
        let signed = match sign() {
            // A server that was started anew knows nothing of a public key that no token tells.
            Err(Error::Server(failure)) if failure.code == ErrorCode::KeyNotFound => {
                let open = OpenKey::new(self.uri.as_str()).pin(self.pin.clone());
                let spki = Some(self.public.spki().to_vec().into());
                self.client.open_key(open.spki(spki)).and_then(|_| sign())
            }
            signed => signed,
        };
        let signature = match signed {
            // Its full URI leads to no key any more: a new one in its place has another id.
            Err(Error::Server(failure)) if failure.code == ErrorCode::KeyNotFound => {
                return Err(key_is_gone(failure).into());
            }
            signed => signed?,
        };
        match self.lengths.contains(&signature.len()) {
            true => Ok(signature),
            false => Err(Error::bad_answer(format_args!(
                "a signature of {} bytes is none of this key",
                signature.len()
            ))),
        }
    }
}

fn key_is_gone(failure: Failure) -> Failure {
    let message = format!(
        "the key that was opened is not there any more: open it again, with its certificate ({})",
        failure.message
    );
    let code = ErrorCode::KeyChanged;
    Failure::new(code, message)
        .function(failure.function)
        .ckr(failure.ckr)
}

/// What [`crate::Resolver`] and rustls take.
impl From<SigningKey> for Arc<dyn sign::SigningKey> {
    fn from(key: SigningKey) -> Self {
        Arc::new(key)
    }
}

impl sign::SigningKey for SigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        let mut available = self.schemes().iter();
        let scheme = available.find(|scheme| offered.contains(scheme)).copied();
        let refused = scheme.is_none().then(|| offered.to_vec());
        self.0.refused.set(refused);
        let Some(scheme) = scheme else {
            tracing::warn!("{}", self.no_common_scheme(offered));
            return None;
        };
        Some(Box::new(Signer {
            key: self.0.clone(),
            scheme,
        }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.0.public.spki()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm
    }
}

/// The key with the scheme that one handshake has negotiated.
#[derive(Debug)]
struct Signer {
    key: Arc<Opened>,
    scheme: SignatureScheme,
}

impl sign::Signer for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signed = self.key.sign(self.scheme.into(), message);
        signed.map_err(|e| OtherError(Arc::new(e)).into())
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
