//! Where a peer takes no signature of a key: what is said for P-521, and by a server.

use std::sync::Arc;

use p11_client::message::{OpenedKey, Request, Response};
use p11_client::spki::{Curve, PublicKey};
use p11_client::{Client, ErrorCode, Failure, Scheme, SigningKey};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::sign::SigningKey as _;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConnection, SignatureScheme as Tls,
};

use crate::assertions::assert_error;
use crate::fake_server::TempSocket;
use crate::handshake::logged;
use crate::test_key::TestKey;
use crate::tls::{ALL_SCHEMES, send};

/// ring has no such keys, so it is only asked for.
#[test]
fn a_key_on_p521_says_that_few_peers_take_it() {
    let public = PublicKey::ec(Curve::P521, &[4; 133]).unwrap();
    let client = Client::with_transport(move |request: &Request| {
        Ok(match request {
            Request::OpenKey(_) => {
                let schemes = [Scheme::EcdsaP521Sha512];
                Response::Key(OpenedKey::new("pkcs11:object=k", &public, schemes))
            }
            _ => Response::Error(Failure::new(ErrorCode::Unsupported, "not here")),
        })
    });
    let key = SigningKey::open(&client, "pkcs11:", None, None).unwrap();
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
