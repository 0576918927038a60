//! p11-client in a program with both ring and aws-lc-rs: nothing panics, and what works with which is a table.
#![cfg(test)]

use std::fmt::Write;
use std::ops::DerefMut;
use std::sync::Arc;
use std::{env, fs};

use p11_client::rustls::client::danger::HandshakeSignatureValid;
use p11_client::rustls::crypto::{
    CryptoProvider, aws_lc_rs, ring, verify_tls12_signature, verify_tls13_signature,
};
use p11_client::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject,
};
use p11_client::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use p11_client::rustls::version::{TLS12, TLS13};
use p11_client::rustls::{
    ClientConnection, ConnectionCommon, DigitallySignedStruct, DistinguishedName, Error,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use p11_client::{Client, Config, KeyProvider, KeyReference, SigningKey};
use p11_tests::keys::{KeyKind, KeySpec};
use p11_tests::pki::certificate_for;
use p11_tests::server::Server;
use p11_tests::softhsm::SoftHsm;
use p11_tests::verify::verifies;

const PIN: &str = "open-sesame";

const KINDS: [(&str, KeyKind); 7] = [
    ("P-256", KeyKind::P256),
    ("P-384", KeyKind::P384),
    ("P-521", KeyKind::P521),
    ("RSA 2048", KeyKind::Rsa2048),
    ("RSA 3072", KeyKind::Rsa3072),
    ("RSA 4096", KeyKind::Rsa4096),
    ("Ed25519", KeyKind::Ed25519),
];

/// The page with the table.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tls.md");

/// The first two lines of the table: peers that take all schemes of their provider, and such as take PKCS#1 alone of RSA.
const HEAD: &str = "\
| key | ring, TLS 1.2 | ring, TLS 1.3 | aws-lc-rs, TLS 1.2 | aws-lc-rs, TLS 1.3 | PKCS#1 alone, TLS 1.2 | PKCS#1 alone, TLS 1.3 |
|---|---|---|---|---|---|---|
";

#[test]
fn without_a_chosen_provider_there_is_an_error_and_no_panic() {
    let hsm = SoftHsm::new();
    let (server, chain) = serve(&hsm, KeyKind::P256);
    let key = open(&server, &chain);
    let config = key.client_config(None, RootCertStore::empty(), chain.clone());
    assert_eq!(config.unwrap_err().code(), "NoCryptoProvider");
    for provider in [ring::default_provider(), aws_lc_rs::default_provider()] {
        let provider = Arc::new(provider);
        let roots = RootCertStore::empty();
        key.client_config(provider.clone(), roots, chain.clone())
            .unwrap();
        key.server_config(provider, chain.clone()).unwrap();
    }
    aws_lc_rs::default_provider().install_default().unwrap();
    key.server_config(None, chain).unwrap();
}

#[test]
fn every_kind_of_key_signs_what_both_providers_take() {
    let (ring, aws) = (
        Arc::new(ring::default_provider()),
        Arc::new(aws_lc_rs::default_provider()),
    );
    let all = |_: &SignatureScheme| true;
    let pkcs1 = |scheme: &SignatureScheme| format!("{scheme:?}").starts_with("RSA_PKCS1");
    let mut table = HEAD.to_owned();
    for (name, kind) in KINDS {
        let hsm = SoftHsm::new();
        let (server, chain) = serve(&hsm, kind);
        write!(table, "| {name} |").unwrap();
        for (provider, version, taken) in [
            (&ring, &TLS12, &all as &dyn Fn(&SignatureScheme) -> bool),
            (&ring, &TLS13, &all),
            (&aws, &TLS12, &all),
            (&aws, &TLS13, &all),
            (&aws, &TLS12, &pkcs1),
            (&aws, &TLS13, &pkcs1),
        ] {
            let key = open(&server, &chain);
            let seen = handshake(&key, &chain, provider, version, taken);
            let seen = seen.map_or("-".to_owned(), |scheme| format!("{scheme:?}"));
            write!(table, " {seen} |").unwrap();
        }
        table.push('\n');
    }
    assert_is_told(&table);
}

/// That the page has this table. Where `UPDATE_DOCS` is set it is written there instead.
fn assert_is_told(table: &str) {
    let page = fs::read_to_string(PAGE).unwrap();
    let (before, _) = page.split_once(HEAD).unwrap();
    let page_due = format!("{before}{table}");
    match env::var_os("UPDATE_DOCS") {
        Some(_) => fs::write(PAGE, page_due).unwrap(),
        None => assert_eq!(page, page_due, "UPDATE_DOCS=1 writes it to {PAGE}"),
    }
}

#[test]
fn a_reference_in_place_of_a_private_key_is_a_key_with_both_providers() {
    let hsm = SoftHsm::new();
    let (server, chain) = serve(&hsm, KeyKind::P256);
    let spki = open(&server, &chain).public_key_info().spki().to_vec();
    let pem = KeyReference::new("pkcs11:token=device").to_pem().unwrap();
    let of_another = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    for beneath in [ring::default_provider(), aws_lc_rs::default_provider()] {
        let client = Client::new(Config::new(server.socket()));
        let provider = KeyProvider::over(beneath, client);
        let load = |pem: &str| {
            let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            provider.key_provider.load_private_key(der).unwrap()
        };
        let signer = load(&pem).choose_scheme(&[scheme]).unwrap();
        let signature = signer.sign(b"message").unwrap();
        assert!(verifies(&spki, scheme.into(), b"message", &signature));
        assert!(load(&of_another).public_key().is_some());
    }
}

fn serve(hsm: &SoftHsm, kind: KeyKind) -> (Server, Vec<CertificateDer<'static>>) {
    let token = hsm.init_token("device", PIN, "open-barley");
    let key = hsm.generate(&token, &KeySpec::new(kind, "key", &[1]));
    let server = Server::builder().softhsm(hsm).pin(PIN).start();
    (server, vec![certificate_for(&key.spki).into()])
}

fn open(server: &Server, chain: &[CertificateDer<'_>]) -> SigningKey {
    let client = Client::new(Config::new(server.socket()));
    SigningKey::open_for(&client, "pkcs11:token=device", None, chain).unwrap()
}

/// The scheme with which a client has proved itself to a server that takes these, in one version of TLS.
fn handshake(
    key: &SigningKey,
    chain: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
    version: &'static SupportedProtocolVersion,
    taken: &dyn Fn(&SignatureScheme) -> bool,
) -> Option<SignatureScheme> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let of_server = pair.cert.der().clone();
    let server_key = PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(of_server.clone()).unwrap();
    let client = key.client_config(provider.clone(), roots, chain.to_vec());

    let algorithms = provider.signature_verification_algorithms;
    let mut schemes = algorithms.supported_schemes();
    schemes.retain(taken);
    let verifier = Arc::new(Verifier {
        schemes,
        provider: provider.clone(),
        seen: std::sync::Mutex::default(),
    });
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(vec![of_server], server_key.into())
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client.unwrap()), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        // A peer that offers nothing that TLS 1.3 has is refused by rustls itself.
        if send(&mut client, &mut server)
            .and(send(&mut server, &mut client))
            .is_err()
        {
            return None;
        }
    }
    let seen = *verifier.seen.lock().unwrap();
    assert_eq!(seen.is_some(), server.peer_certificates().is_some());
    assert_eq!(seen.is_none(), key.why_not_sent().is_some());
    seen
}

fn send<A, B>(
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
    seen: std::sync::Mutex<Option<SignatureScheme>>,
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _client: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
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
