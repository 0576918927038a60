//! TLS handshakes with real peers, mosquitto and `openssl s_server`, in which the client proves
//! itself with a key in a SoftHSM2 token.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use p11_client::Config;
use p11_tests::{
    broker::Broker,
    keys::{Key, KeyKind, KeySpec},
    mqtt,
    old_server::OldServer,
    openssl::{OpensslServer, Seen},
    pki::{Pki, Version},
    server::Server,
    softhsm::SoftHsm,
    text::assert_contains,
};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};

const PIN: &str = "482915";
const CN: &str = "a device";

/// A server that signs with one key, and the authority that certifies it.
struct Device {
    /// A released server before ours, where the client is to meet one.
    old: Option<OldServer>,
    server: Server,
    _hsm: SoftHsm,
    key: Key,
    pki: Pki,
}

impl Device {
    fn new(kind: KeyKind) -> Self {
        let hsm = SoftHsm::new();
        let token = hsm.init_token("device", PIN, "771122");
        let key = hsm.generate(&token, &KeySpec::new(kind, "key", &[1]));
        let server = Server::builder().softhsm(&hsm).pin(PIN).start();
        Self {
            old: None,
            server,
            _hsm: hsm,
            key,
            pki: Pki::new(),
        }
    }

    fn with_an_old_server(kind: KeyKind) -> Self {
        let device = Self::new(kind);
        let old = Some(OldServer::before(&device.server));
        Self { old, ..device }
    }

    fn socket(&self) -> &Path {
        let old = self.old.as_ref().map(OldServer::socket);
        old.unwrap_or(self.server.socket())
    }

    /// Connects, with one TLS version allowed, and completes the handshake.
    fn connect(
        &self,
        port: u16,
        tls: &'static SupportedProtocolVersion,
        certificate: Version,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let certificate = self.pki.client(CN, &self.key.spki, certificate);
        let auth = p11_client::client_auth(
            Config::new(self.socket()),
            "pkcs11:token=device;object=key",
            None,
            vec![CertificateDer::from_pem_file(certificate).unwrap()],
        )
        .unwrap();
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.pki.authority()).unwrap();
        roots.add(authority).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[tls])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(auth);
        let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(tls, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }

    /// mosquitto lets the client in, with the certificate's name as user name.
    fn logs_in_at_mosquitto(&self, tls: &'static SupportedProtocolVersion, certificate: Version) {
        let broker = Broker::start(&self.pki);
        let mut stream = self.connect(broker.port(), tls, certificate);
        assert_eq!(mqtt::connect(&mut stream, "client").unwrap(), 0);
        assert_eq!(stream.conn.protocol_version(), Some(tls.version));
        broker.wait_for_log(&format!("u'{CN}'"));
    }

    /// openssl takes the client's signature and sends a line back. `arguments` say what else it
    /// allows; what it saw is returned.
    fn shows_openssl(
        &self,
        tls: &'static SupportedProtocolVersion,
        arguments: &[&str],
        certificate: Version,
    ) -> Seen {
        let peer = OpensslServer::start(&self.pki, arguments);
        let mut stream = self.connect(peer.port(), tls, certificate);
        stream.write_all(b"hello\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert_eq!(answer, "olleh\n");
        peer.seen()
    }
}

fn seen(version: ProtocolVersion, signature: &str, hash: &str) -> Seen {
    Seen {
        protocol: match version {
            ProtocolVersion::TLSv1_2 => "TLSv1.2".into(),
            _ => "TLSv1.3".into(),
        },
        certificate: format!("CN = {CN}"),
        signature: signature.into(),
        hash: Some(hash.into()),
    }
}

#[test]
fn mosquitto_takes_an_ecdsa_key_over_both_versions_of_tls() {
    let device = Device::new(KeyKind::P256);
    device.logs_in_at_mosquitto(&TLS12, Version::V3);
    device.logs_in_at_mosquitto(&TLS13, Version::V3);
}

#[test]
fn mosquitto_takes_an_rsa_key_over_both_versions_of_tls() {
    let device = Device::new(KeyKind::Rsa2048);
    device.logs_in_at_mosquitto(&TLS12, Version::V3);
    device.logs_in_at_mosquitto(&TLS13, Version::V3);
}

#[test]
fn mosquitto_takes_keys_of_a_server_that_knows_no_protocol_1() {
    // The numbers of tedge1's messages.
    const CHOOSE_SCHEME: u8 = 1;
    const SIGN_WITH_SCHEME: u8 = 5;
    const GET_PUBLIC_KEY: u8 = 6;
    const PING: u8 = 8;
    for kind in [KeyKind::P256, KeyKind::Rsa2048] {
        let device = Device::with_an_old_server(kind);
        let old = device.old.as_ref().unwrap();
        for tls in [&TLS12, &TLS13] {
            device.logs_in_at_mosquitto(tls, Version::V3);
            let asked = old.asked();
            let [PING, before @ .., SIGN_WITH_SCHEME] = asked.as_slice() else {
                panic!("no probe first or no signature last: {asked:?}");
            };
            let known = |number: &u8| matches!(*number, CHOOSE_SCHEME | GET_PUBLIC_KEY);
            assert!(before.iter().all(known), "{asked:?}");
        }
    }
}

#[test]
fn openssl_takes_rsa_of_an_old_server_where_it_allows_only_pkcs1() {
    let device = Device::with_an_old_server(KeyKind::Rsa2048);
    let saw = device.shows_openssl(&TLS12, &["-client_sigalgs", "RSA+SHA256"], Version::V3);
    assert_eq!(saw, seen(ProtocolVersion::TLSv1_2, "RSA", "SHA256"));
}

#[test]
fn a_certificate_for_another_key_is_refused_before_an_old_server_signs() {
    let device = Device::with_an_old_server(KeyKind::P256);
    let other = device.pki.server().certificate;
    let refused = p11_client::client_auth(
        Config::new(device.socket()),
        "pkcs11:token=device;object=key",
        None,
        vec![CertificateDer::from_pem_file(other).unwrap()],
    );
    let said = refused.unwrap_err().to_string();
    assert_contains(
        &said,
        ["is an old one and cannot choose the certificate's key"],
    );
}

#[test]
fn mosquitto_takes_an_x509_version_1_certificate() {
    let device = Device::new(KeyKind::P256);
    device.logs_in_at_mosquitto(&TLS12, Version::V1);
    device.logs_in_at_mosquitto(&TLS13, Version::V1);
}

#[test]
fn openssl_takes_every_elliptic_curve() {
    // In TLS 1.2 a certificate's curve must be one that the client can exchange keys on (RFC 8422,
    // section 5.1), and the crypto provider of these tests, ring, knows no P-521.
    let both: &[_] = &[&TLS12, &TLS13];
    for (kind, hash, versions) in [
        (KeyKind::P256, "SHA256", both),
        (KeyKind::P384, "SHA384", both),
        (KeyKind::P521, "SHA512", &[&TLS13]),
    ] {
        let device = Device::new(kind);
        for tls in versions {
            let saw = device.shows_openssl(tls, &[], Version::V3);
            assert_eq!(saw, seen(tls.version, "ECDSA", hash));
        }
    }
}

#[test]
fn openssl_takes_ed25519_over_both_versions_of_tls() {
    let device = Device::new(KeyKind::Ed25519);
    for tls in [&TLS12, &TLS13] {
        let saw = device.shows_openssl(tls, &[], Version::V3);
        assert_eq!(saw.signature, "ed25519");
    }
}

#[test]
fn openssl_takes_rsa_where_it_allows_only_pkcs1() {
    let device = Device::new(KeyKind::Rsa2048);
    for hash in ["SHA256", "SHA384", "SHA512"] {
        let only = format!("RSA+{hash}");
        let saw = device.shows_openssl(&TLS12, &["-client_sigalgs", &only], Version::V3);
        assert_eq!(saw, seen(ProtocolVersion::TLSv1_2, "RSA", hash));
    }
}

#[test]
fn openssl_takes_rsa_where_it_allows_only_pss() {
    let device = Device::new(KeyKind::Rsa2048);
    for tls in [&TLS12, &TLS13] {
        for hash in ["SHA256", "SHA384", "SHA512"] {
            let only = format!("RSA-PSS+{hash}");
            let saw = device.shows_openssl(tls, &["-client_sigalgs", &only], Version::V3);
            assert_eq!(saw, seen(tls.version, "RSA-PSS", hash));
        }
    }
}

#[test]
fn openssl_takes_rsa_with_an_x509_version_1_certificate() {
    let device = Device::new(KeyKind::Rsa2048);
    let saw = device.shows_openssl(&TLS13, &[], Version::V1);
    assert_eq!(saw.signature, "RSA-PSS");
}

#[test]
fn a_certificate_for_another_key_is_refused_before_any_handshake() {
    let device = Device::new(KeyKind::P256);
    let other = device.pki.server().certificate;
    let refused = p11_client::client_auth(
        Config::new(device.server.socket()),
        "pkcs11:token=device;object=key",
        None,
        vec![CertificateDer::from_pem_file(other).unwrap()],
    );
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("pkcs11:token=device;object=key"), "{said}");
    assert!(said.contains("public key"), "{said}");
}
