//! A TLS handshake in memory: a client's authentication, and what the server sees of it.

use std::ops::DerefMut;
use std::sync::{Arc, Mutex};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, DistinguishedName,
    Error, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion,
};

/// The schemes of ring for client certificates, in no order that a key prefers.
pub const ALL_SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
];

/// A handshake with a server that offers these schemes, accepts a certificate of any issuer, and
/// verifies the signature. Returns the client's certificate and the scheme of its signature.
pub fn handshake(
    version: &'static SupportedProtocolVersion,
    schemes: &[SignatureScheme],
    auth: Arc<dyn ResolvesClientCert>,
) -> Result<Option<(CertificateDer<'static>, SignatureScheme)>, Error> {
    let server = TlsServer::offering(version, schemes);
    let provider = Arc::new(ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(server.roots())
        .with_client_cert_resolver(auth);
    let (mut client, mut connection) = server.pair(Arc::new(client));
    shake_hands(&mut client, &mut connection)?;
    let scheme = *server.verifier.seen.lock().unwrap();
    let certificates = connection.peer_certificates().unwrap_or_default();
    Ok(certificates.first().cloned().zip(scheme))
}

/// The certificate that a server shows to a client which takes these schemes, after a whole handshake.
pub fn shown_by(server: ServerConfig, schemes: &[SignatureScheme]) -> CertificateDer<'static> {
    let provider = Arc::new(ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier {
            schemes: schemes.to_vec(),
            provider,
            seen: Mutex::default(),
        }))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    shake_hands(&mut client, &mut server).unwrap();
    client.peer_certificates().unwrap()[0].clone()
}

/// A server that wants a certificate, and resumes sessions.
pub struct TlsServer {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
    verifier: Arc<Verifier>,
}

impl TlsServer {
    pub fn new(version: &'static SupportedProtocolVersion) -> Self {
        TlsServer::offering(version, &ALL_SCHEMES)
    }

    /// One that takes these schemes.
    fn offering(version: &'static SupportedProtocolVersion, schemes: &[SignatureScheme]) -> Self {
        let provider = Arc::new(ring::default_provider());
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = pair.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());
        let verifier = Arc::new(Verifier {
            schemes: schemes.to_vec(),
            provider: provider.clone(),
            seen: Mutex::default(),
        });
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        TlsServer {
            config: Arc::new(config),
            certificate,
            verifier,
        }
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    /// A connection of which nothing was sent yet.
    pub fn pair(&self, client: Arc<ClientConfig>) -> (ClientConnection, ServerConnection) {
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(client, name).unwrap();
        let server = ServerConnection::new(self.config.clone()).unwrap();
        (client, server)
    }

    /// How a client got in, and the certificate that it is known by.
    pub fn connect(&self, client: Arc<ClientConfig>) -> (HandshakeKind, CertificateDer<'static>) {
        let (mut client, mut server) = self.pair(client);
        shake_hands(&mut client, &mut server).unwrap();
        // Tickets of TLS 1.3.
        send(&mut server, &mut client).unwrap();
        let certificates = server.peer_certificates().unwrap();
        (client.handshake_kind().unwrap(), certificates[0].clone())
    }
}

/// Goes on until both sides are done, or one refuses the other.
fn shake_hands(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
    while client.is_handshaking() || server.is_handshaking() {
        send(client, server)?;
        send(server, client)?;
    }
    Ok(())
}

/// Sends what one side has written to the other.
pub fn send<A, B>(
    from: &mut impl DerefMut<Target = ConnectionCommon<A>>,
    to: &mut impl DerefMut<Target = ConnectionCommon<B>>,
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
    seen: Mutex<Option<SignatureScheme>>,
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
        *self.seen.lock().unwrap() = Some(signature.scheme);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        *self.seen.lock().unwrap() = Some(signature.scheme);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        _server: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls12_signature(self, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls13_signature(self, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
