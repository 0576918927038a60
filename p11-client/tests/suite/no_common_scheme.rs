//! Where a peer takes no signature of a key: what is said for P-521, and by a server.

use std::sync::Arc;

use p11_client::message::{OpenedKey, Request, Response};
use p11_client::spki::PublicKey;
use p11_client::{Client, ErrorCode, Failure, LazyKey, Resolver, Scheme, SigningKey};
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SigningKey as _;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConnection, SignatureScheme as Tls,
};

use crate::assertions::assert_error;
use crate::fake_server::TempSocket;
use crate::handshake::logged;
use crate::test_key::TestKey;
use crate::tls::{ALL_SCHEMES, handshake, send};

const P521: &[u8] = include_bytes!("data/p521.crt");

/// ring has no such keys, so it is only asked for.
fn p521() -> SigningKey {
    let public = PublicKey::of_certificate(P521).unwrap();
    let client = Client::with_transport(move |request: &Request| {
        Ok(match request {
            Request::OpenKey(_) => {
                let schemes = [Scheme::EcdsaP521Sha512];
                Response::Key(OpenedKey::new("pkcs11:object=k", &public, schemes))
            }
            _ => Response::Error(Failure::new(ErrorCode::Unsupported, "not here")),
        })
    });
    SigningKey::open(&client, "pkcs11:", None, None).unwrap()
}

#[test]
fn a_key_on_p521_is_the_last_choice_in_tls_1_2_and_a_warning() {
    let chain = vec![CertificateDer::from(P521)];
    let only = Resolver::new(chain.clone(), p521()).unwrap();
    let other = TestKey::p256();
    let several = only.clone();
    let several = several.and(vec![other.certificate.clone()], other.signer);
    let several = several.unwrap();
    // What `openssl s_server` asks for.
    let tls13 = [Tls::ECDSA_NISTP256_SHA256, Tls::ECDSA_NISTP521_SHA512];
    let tls12 = [&tls13[..], &[Tls::RSA_PKCS1_SHA256]].concat();
    for (resolver, offered, certificate, part) in [
        (
            &only,
            &tls12[..],
            &chain[0],
            Some("the key is on P-521 and this is TLS 1.2"),
        ),
        (&only, &tls13, &chain[0], None),
        (&several, &tls12, &other.certificate, None),
        (&several, &tls13, &chain[0], None),
    ] {
        let resolve = || ResolvesClientCert::resolve(resolver, &[], offered).unwrap();
        let (chosen, log) = logged(resolve);
        assert_eq!(chosen.cert[0], *certificate);
        assert!(log.contains(part.unwrap_or("")), "{log}");
        assert_eq!(log.is_empty(), part.is_none(), "{log}");
    }
}

#[test]
fn a_resolver_tells_of_every_kind_of_key() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let _server = socket.serve_key(&key);
    let chain = vec![key.certificate.clone()];
    let lazy = LazyKey::new(&socket.client(), "pkcs11:", None, None).unwrap();
    for resolver in [
        Resolver::new(chain.clone(), lazy),
        Resolver::new(chain, key.signer),
    ] {
        let resolver = Arc::new(resolver.unwrap());
        let (seen, log) = logged(|| handshake(&TLS13, &[Tls::ED25519], resolver.clone()));
        assert_eq!(seen.unwrap(), None);
        let can = "can make [ECDSA_NISTP256_SHA256]";
        assert_eq!(log.matches(can).count(), 1, "{log}");
        let why = resolver.why_not_sent().unwrap();
        assert_error(&why, "NoCommonScheme", &[can]);
        handshake(&TLS13, &ALL_SCHEMES, resolver.clone()).unwrap();
        assert!(resolver.why_not_sent().is_none());
    }
}

#[test]
fn a_key_on_p521_says_that_few_peers_take_it() {
    let key = p521();
    let (signer, log) = logged(|| key.choose_scheme(&ALL_SCHEMES));
    assert!(signer.is_none());
    let remedy = "P-521 is what few peers take, in TLS 1.2 above all";
    assert!(log.contains(remedy), "{log}");
    let why = key.why_not_sent().unwrap();
    assert_error(&why, "NoCommonScheme", &[remedy, "P-256 or P-384"]);
}

#[test]
fn a_server_is_told_too_and_not_of_a_client_certificate() {
    let mut key = TestKey::rsa();
    key.schemes = vec![Tls::RSA_PKCS1_SHA256];
    let socket = TempSocket::new();
    let _server = socket.serve_key(&key);
    let opened = socket.open("pkcs11:");
    let provider = Arc::new(ring::default_provider());
    let chain = vec![key.certificate.clone()];
    let server = opened.server_config(provider.clone(), chain).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("device").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();

    let (sent, log) = logged(|| send(&mut client, &mut server));
    sent.unwrap_err();
    for text in [opened.why_not_sent().unwrap().to_string(), log] {
        assert!(text.contains("no certificate is sent"), "{text}");
        assert!(text.contains("only TLS 1.2 will do"), "{text}");
        assert!(!text.contains("client certificate"), "{text}");
    }
}
