//! Keys for libraries that take a private key as PEM.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use p11_client::{Client, Error, KeyProvider, KeyReference, LazyKey};
use p11_proto::Response;
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};

use crate::assertions::assert_error;
use crate::fake_server::TempSocket;
use crate::handshake::logged;
use crate::test_key::TestKey;
use crate::tls::{ALL_SCHEMES, handshake};

const URI: &str = "pkcs11:token=t;object=k";

fn provider(socket: &TempSocket) -> CryptoProvider {
    let client = Client::new(socket.config().retry_for(Duration::ZERO));
    KeyProvider::over(ring::default_provider(), client)
}

/// As a library does it: from PEM, by rustls.
fn loaded(
    provider: &CryptoProvider,
    key: &TestKey,
    pem: &str,
) -> Result<Arc<dyn ResolvesClientCert>, rustls::Error> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let certified = CertifiedKey::from_der(vec![key.certificate.clone()], der, provider)?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

#[test]
fn a_reference_in_place_of_a_private_key_is_a_key_in_a_token() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let pem = KeyReference::new(URI).to_pem().unwrap();
    // There is no server yet.
    let auth = loaded(&provider(&socket), &key, &pem).unwrap();
    let error = handshake(&TLS13, &ALL_SCHEMES, auth).unwrap_err();
    assert_error(Error::in_handshake(&error).unwrap(), "NoSocket", &[]);
    let server = socket.serve_key(&key);
    let auth = loaded(&provider(&socket), &key, &pem).unwrap();
    assert_eq!(server.take_requests(), []);
    for version in [&TLS12, &TLS13] {
        let seen = handshake(version, &ALL_SCHEMES, auth.clone()).unwrap();
        assert_eq!(seen.unwrap().0, key.certificate);
    }
}

#[test]
fn other_keys_are_those_of_the_provider_beneath() {
    let socket = TempSocket::new();
    let provider = provider(&socket);
    let pair = rcgen::KeyPair::generate().unwrap();
    for pem in [
        pair.serialize_pem(),
        include_str!("data/sec1.pem").to_owned(),
    ] {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = provider.key_provider.load_private_key(der).unwrap();
        assert!(key.public_key().is_some());
    }
    let garbage = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(vec![0x30, 0x00]));
    provider.key_provider.load_private_key(garbage).unwrap_err();
}

#[test]
fn a_reference_that_leads_nowhere_is_refused_when_it_is_loaded_and_not_printed() {
    let socket = TempSocket::new();
    let key = TestKey::p256();
    let pem = KeyReference::new("pkcs11:token=%zz?pin-value=1234").to_pem();
    let error = loaded(&provider(&socket), &key, &pem.unwrap()).unwrap_err();
    let error = Error::in_handshake(&error).unwrap();
    assert_error(error, "KeyReference", &["the key cannot be used"]);
    assert!(!error.to_string().contains("1234"), "{error}");
}

#[test]
fn our_own_loader_reads_both_forms_of_a_reference() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let _server = socket.serve_key(&key);
    let reference = KeyReference::new(URI);
    let of_another = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for pem in [
        reference.to_pem().unwrap(),
        reference.to_provider_pem().unwrap(),
    ] {
        let beside_others = format!("{of_another}{pem}");
        for pem in [&pem, &beside_others] {
            let lazy = LazyKey::from_pem(&socket.client(), pem).unwrap();
            assert_eq!(lazy.open().unwrap().identity(), key.public.identity());
        }
    }
    for pem in ["", &of_another] {
        let error = LazyKey::from_pem(&socket.client(), pem).unwrap_err();
        assert_error(&error, "KeyReference", &["no reference to a key"]);
    }
}

#[test]
fn a_uri_of_several_keys_is_a_warning_and_the_key_stays_the_one_that_it_was() {
    let (before, after) = (TestKey::p256(), TestKey::p256());
    let socket = TempSocket::new();
    let there = Arc::new(Mutex::new(before.clone()));
    let _server = socket.serve({
        let there = there.clone();
        move |request| match there.lock().unwrap().answer(request) {
            Response::Key(key) => Response::Key(key.note("2 keys match".to_owned())),
            other => other,
        }
    });
    let pem = KeyReference::new(URI).to_pem().unwrap();
    let auth = loaded(&provider(&socket), &before, &pem).unwrap();
    let (_, log) = logged(|| handshake(&TLS13, &ALL_SCHEMES, auth.clone()).unwrap());
    for part in ["WARN", URI, "2 keys match"] {
        assert!(log.contains(part), "{log}");
    }
    *there.lock().unwrap() = after;
    // Its certificate is still the one of before.
    for _ in 0..3 {
        let error = handshake(&TLS13, &ALL_SCHEMES, auth.clone()).unwrap_err();
        assert!(Error::in_handshake(&error).unwrap().is_key_changed());
    }
    *there.lock().unwrap() = before;
    handshake(&TLS13, &ALL_SCHEMES, auth).unwrap();
}
