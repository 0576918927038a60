//! A rustls signing key: one request when it is opened, then one for each signature.

use std::ops::RangeInclusive;
use std::sync::Arc;

use p11_proto::message::{OpenKey, Sign};
use p11_proto::spki::{Kind, PublicKey};
use p11_proto::{ErrorCode, Identity, Pin};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{OtherError, SignatureAlgorithm, SignatureScheme, sign};

use crate::client::Client;
use crate::error::Error;
use crate::uri::split_pin;

/// A private key in a token, for [`rustls::sign::CertifiedKey`].
///
/// It is the key that was found when it was opened. If the URI leads to another key later, handshakes
/// fail with `KeyChanged` (see [`Error::in_handshake`]) until a new `SigningKey` is opened.
#[derive(Clone, Debug)]
pub struct SigningKey(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    client: Client,
    uri: String,
    pin: Option<Pin>,
    identity: Identity,
    algorithm: SignatureAlgorithm,
    /// How long its signatures may be.
    lengths: RangeInclusive<usize>,
    schemes: Vec<SignatureScheme>,
    spki: SubjectPublicKeyInfoDer<'static>,
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
        let (uri, pin) = split_pin(uri, pin);
        let spki = certificate
            .map(|certificate| PublicKey::of_certificate(certificate))
            .transpose()
            .map_err(Error::Certificate)?
            .map(|key| key.spki().to_vec().into());
        let key = client.open_key(OpenKey::new(uri).pin(pin.clone()).spki(spki))?;
        let public = PublicKey::from_spki(&key.spki)
            .map_err(|e| Error::not_understood(client.socket_path(), e))?;
        Ok(SigningKey(Arc::new(Opened {
            client: client.clone(),
            uri: key.uri,
            pin,
            identity: public.identity(),
            algorithm: match public.kind() {
                Kind::Rsa { .. } => SignatureAlgorithm::RSA,
                Kind::Ec(_) => SignatureAlgorithm::ECDSA,
                Kind::Ed25519 => SignatureAlgorithm::ED25519,
                kind => {
                    let cause = format!("it has a key of an unknown kind, {kind:?}");
                    return Err(Error::not_understood(client.socket_path(), cause));
                }
            },
            lengths: signature_lengths(public.kind()),
            schemes: key.schemes.into_iter().map(SignatureScheme::from).collect(),
            spki: public.spki().to_vec().into(),
        })))
    }

    /// The full URI of the key, without PIN.
    pub fn uri(&self) -> &str {
        &self.0.uri
    }

    /// The SHA-256 of its public key.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// The schemes that it can sign with, the preferred one first.
    pub fn schemes(&self) -> &[SignatureScheme] {
        &self.0.schemes
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

impl sign::SigningKey for SigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        let available = self.schemes();
        let Some(scheme) = available.iter().find(|scheme| offered.contains(scheme)) else {
            // rustls continues without a certificate, and the peer's alert does not tell why.
            tracing::warn!(
                uri = ?self.0.uri, ?offered, ?available,
                "no client certificate is sent: the peer offers no signature scheme that the key can do"
            );
            return None;
        };
        Some(Box::new(Signer {
            key: self.0.clone(),
            scheme: *scheme,
        }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.0.spki.as_ref()))
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
        let key = &self.key;
        let sign = || {
            let scheme = self.scheme.into();
            let request = Sign::new(key.uri.as_str(), scheme, message.to_vec(), key.identity);
            key.client.sign(request.pin(key.pin.clone()))
        };
        let signed = match sign() {
            // A server that was started anew knows nothing of a public key that no token tells.
            Err(Error::Server(failure)) if failure.code == ErrorCode::KeyNotFound => {
                let spki = key.spki.as_ref().to_vec().into();
                let open = OpenKey::new(key.uri.as_str()).pin(key.pin.clone());
                key.client
                    .open_key(open.spki(Some(spki)))
                    .and_then(|_| sign())
            }
            signed => signed,
        };
        let signed =
            signed.and_then(
                |signature| match self.key.lengths.contains(&signature.len()) {
                    true => Ok(signature),
                    false => Err(Error::not_understood(
                        self.key.client.socket_path(),
                        format!(
                            "a signature of {} bytes is none of this key",
                            signature.len()
                        ),
                    )),
                },
            );
        signed.map_err(|e| OtherError(Arc::new(e)).into())
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
