//! TLS handshakes in memory: a client's authentication in, what the server saw of it out.

use std::sync::{Arc, Mutex};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, DistinguishedName,
    Error, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion,
};

/// A TLS server that wants a certificate of whatever issuer and verifies the signature.
#[derive(Debug)]
pub struct Peer {
    pub version: &'static SupportedProtocolVersion,
    pub schemes: Vec<SignatureScheme>,
}

/// What a peer saw of a client that it let in: its certificate and the scheme of its signature.
pub type Seen = Option<(CertificateDer<'static>, SignatureScheme)>;

impl Peer {
    /// One whole handshake with this peer.
    pub fn handshake(self, auth: Arc<dyn ResolvesClientCert>) -> Result<Seen, Error> {
        let provider = Arc::new(ring::default_provider());
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = pair.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());

        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(auth);
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();

        let verifier = Arc::new(Verifier {
            schemes: self.schemes,
            provider: provider.clone(),
            scheme: Mutex::default(),
        });
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(vec![certificate], key.into())
            .unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();

        while client.is_handshaking() || server.is_handshaking() {
            carry(&mut client, &mut server)?;
            carry(&mut server, &mut client)?;
        }
        let scheme = *verifier.scheme.lock().unwrap();
        let certificates = server.peer_certificates().unwrap_or_default();
        Ok(certificates.first().cloned().zip(scheme))
    }
}

/// Brings what one side has to say to the other.
fn carry<A, B>(
    from: &mut impl std::ops::DerefMut<Target = ConnectionCommon<A>>,
    to: &mut impl std::ops::DerefMut<Target = ConnectionCommon<B>>,
) -> Result<(), Error> {
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight).unwrap();
    }
    let mut flight = flight.as_slice();
    while !flight.is_empty() {
        to.read_tls(&mut flight).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

#[derive(Debug)]
struct Verifier {
    schemes: Vec<SignatureScheme>,
    provider: Arc<CryptoProvider>,
    scheme: Mutex<Option<SignatureScheme>>,
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _client: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        *self.scheme.lock().unwrap() = Some(signature.scheme);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        *self.scheme.lock().unwrap() = Some(signature.scheme);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
