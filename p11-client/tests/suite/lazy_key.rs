//! Keys that are opened by the first handshake.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use p11_client::{Client, Error, LazyKey, Resolver};
use p11_proto::Request;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::version::{TLS12, TLS13};

use crate::assertions::assert_error;
use crate::fake_server::TempSocket;
use crate::handshake::logged;
use crate::test_key::TestKey;
use crate::tls::{ALL_SCHEMES, handshake, shown_by};

fn impatient(socket: &TempSocket) -> Client {
    Client::new(socket.config().retry_for(Duration::ZERO))
}

#[test]
fn a_key_is_opened_by_the_first_handshake_that_finds_a_server() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let lazy = LazyKey::new(&impatient(&socket), "pkcs11:", None, Some(&key.certificate));
    let resolver = Resolver::new(vec![key.certificate.clone()], lazy.unwrap()).unwrap();
    let resolver = Arc::new(resolver);
    for version in [&TLS12, &TLS13] {
        let error = handshake(version, &ALL_SCHEMES, resolver.clone()).unwrap_err();
        assert_error(Error::in_handshake(&error).unwrap(), "NoSocket", &[]);
    }
    let server = socket.serve_key(&key);
    for version in [&TLS12, &TLS13] {
        // A failure just now counts for the same handshake; this is another.
        std::thread::sleep(Duration::from_millis(300));
        let seen = handshake(version, &ALL_SCHEMES, resolver.clone()).unwrap();
        assert_eq!(seen.unwrap().0, key.certificate);
    }
    let requests = server.take_requests();
    let [Request::OpenKey(open), Request::Sign(_), Request::Sign(_)] = &requests[..] else {
        panic!("{requests:?}");
    };
    // It is the certificate's key, and no other.
    assert!(
        open.spki
            .as_ref()
            .is_some_and(|spki| **spki == key.public.spki())
    );
}

#[test]
fn a_server_of_tls_1_2_opens_its_key_in_the_first_handshake() {
    for key in [TestKey::rsa(), TestKey::p256()] {
        let socket = TempSocket::new();
        let server = socket.serve_key(&key);
        let lazy = LazyKey::new(&socket.client(), "pkcs11:", None, None).unwrap();
        let resolver = Resolver::new(vec![key.certificate.clone()], lazy).unwrap();
        assert_eq!(server.take_requests(), []);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        assert_eq!(shown_by(config, &ALL_SCHEMES), key.certificate);
    }
}

#[test]
fn a_key_that_changed_is_opened_again_by_the_next_handshake() {
    let (before, after) = (TestKey::p256(), TestKey::p256());
    let socket = TempSocket::new();
    let there = Arc::new(Mutex::new(before.clone()));
    let _server = socket.serve({
        let there = there.clone();
        move |request| there.lock().unwrap().answer(request)
    });
    let lazy = LazyKey::new(&socket.client(), "pkcs11:", None, None).unwrap();
    // Each tells it the certificate.
    let of = |key: &TestKey| Resolver::new(vec![key.certificate.clone()], lazy.clone()).unwrap();
    let resolver = Arc::new(of(&before));
    handshake(&TLS13, &ALL_SCHEMES, resolver.clone()).unwrap();
    *there.lock().unwrap() = after.clone();
    let error = handshake(&TLS13, &ALL_SCHEMES, resolver).unwrap_err();
    assert!(Error::in_handshake(&error).unwrap().is_key_changed());
    let seen = handshake(&TLS13, &ALL_SCHEMES, Arc::new(of(&after))).unwrap();
    assert_eq!(seen.unwrap().0, after.certificate);
}

#[test]
fn of_several_keys_it_is_that_of_the_resolvers_certificate() {
    let (first, own) = (TestKey::p256(), TestKey::p256());
    let socket = TempSocket::new();
    let _server = socket.serve({
        let keys = [first, own.clone()];
        move |request| {
            let is_own = match &request {
                Request::OpenKey(open) => open.spki.as_ref().map(|spki| &***spki),
                Request::Sign(sign) if sign.identity == keys[1].public.identity() => {
                    Some(keys[1].public.spki())
                }
                _ => None,
            };
            keys[usize::from(is_own == Some(keys[1].public.spki()))].answer(request)
        }
    });
    let lazy = LazyKey::new(&socket.client(), "pkcs11:", None, None).unwrap();
    let resolver = Resolver::new(vec![own.certificate.clone()], lazy).unwrap();
    let seen = handshake(&TLS13, &ALL_SCHEMES, Arc::new(resolver)).unwrap();
    assert_eq!(seen.unwrap().0, own.certificate);
}

#[test]
fn a_certificate_that_is_not_the_keys_is_refused_before_a_handshake() {
    let (key, other) = (TestKey::p256(), TestKey::p256());
    let client = TempSocket::new().client();
    let lazy = LazyKey::new(&client, "pkcs11:", None, Some(&key.certificate)).unwrap();
    let error = Resolver::new(vec![other.certificate], lazy).unwrap_err();
    assert_error(&error, "Mismatch", &[&key.public.identity().to_string()]);
}

#[test]
fn one_that_cannot_be_opened_leaves_the_handshake_to_the_next_key() {
    let (dead, other) = (TestKey::p256(), TestKey::p256());
    let lazy = LazyKey::new(&impatient(&TempSocket::new()), "pkcs11:", None, None).unwrap();
    let resolver = Resolver::new(vec![dead.certificate], lazy).unwrap();
    let resolver = resolver.and(vec![other.certificate.clone()], other.signer);
    let resolver = Arc::new(resolver.unwrap());
    let (seen, log) = logged(|| handshake(&TLS13, &ALL_SCHEMES, resolver).unwrap());
    assert_eq!(seen.unwrap().0, other.certificate);
    assert!(log.contains("another key is used"), "{log}");
}
