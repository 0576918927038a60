//! rustls configurations: with a provider, without any, for clients and servers; and what a key tells of itself.

use std::sync::Arc;

use p11_client::message::{ListKeys, OpenKey};
use p11_client::{Client, Error, Scheme};
use p11_proto::Request;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{ServerName, SubjectPublicKeyInfoDer};
use rustls::{ClientConnection, ServerConnection};

use crate::assertions::assert_error;
use crate::fake_server::TempSocket;
use crate::requests::pin;
use crate::test_key::TestKey;
use crate::tls::send;

#[test]
fn a_client_and_a_server_with_keys_in_tokens_talk_and_without_a_provider_nothing_panics() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let _server = socket.serve_key(&key);
    let opened = socket.open("pkcs11:");
    let chain = || vec![key.certificate.clone()];
    let mut roots = RootCertStore::empty();
    roots.add(key.certificate.clone()).unwrap();

    // rustls' own builder has ring here, and with aws-lc-rs beside it would panic.
    let client = opened.client_config(None, roots.clone(), chain());
    assert_error(&client.unwrap_err(), "NoCryptoProvider", &["pass one"]);
    let server = opened.server_config(None, chain());
    assert!(matches!(server, Err(Error::NoCryptoProvider)));

    let provider = Arc::new(ring::default_provider());
    let client = opened.client_config(provider.clone(), roots, chain());
    let server = opened.server_config(provider, chain()).unwrap();
    let name = ServerName::try_from("device").unwrap();
    let mut client = ClientConnection::new(Arc::new(client.unwrap()), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        send(&mut client, &mut server).unwrap();
        send(&mut server, &mut client).unwrap();
    }
}

#[test]
fn a_key_signs_and_tells_its_public_key() {
    for (key, scheme, bits) in [
        (TestKey::p256(), Scheme::EcdsaP256Sha256, 256),
        (TestKey::rsa(), Scheme::RsaPssSha512, 2048),
        (TestKey::ed25519(), Scheme::Ed25519, 255),
    ] {
        let socket = TempSocket::new();
        let _server = socket.serve_key(&key);
        let opened = socket.open("pkcs11:");
        assert!(!opened.sign(scheme, b"message").unwrap().is_empty());
        assert_eq!(opened.public_key_bits(), bits);
        let pem = opened.public_key_pem();
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_eq!(spki.as_ref(), key.public.spki());
    }
}

#[test]
fn the_clients_pin_goes_where_a_request_has_none() {
    let socket = TempSocket::new();
    let server = socket.serve_key(&TestKey::p256());
    let client = Client::new(socket.config().pin(pin()));
    let key = p11_client::SigningKey::open(&client, "pkcs11:", None, None).unwrap();
    key.sign(Scheme::EcdsaP256Sha256, b"message").unwrap();
    client.list_keys(ListKeys::new("pkcs11:")).unwrap_err();
    let own = OpenKey::new("pkcs11:").pin(p11_client::Pin::from("5678"));
    client.open_key(own).unwrap();
    let pins: Vec<_> = server
        .take_requests()
        .into_iter()
        .map(|request| match request {
            Request::OpenKey(open) => open.pin,
            Request::Sign(sign) => sign.pin,
            Request::ListKeys(list) => list.pin,
            other => panic!("{other:?}"),
        })
        .collect();
    let own = Some("5678".into());
    assert_eq!(pins, [Some(pin()), Some(pin()), Some(pin()), own]);
    assert!(!format!("{client:?} {key:?}").contains("1234"));
}
