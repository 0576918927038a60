//! TLS handshakes with a key behind a server of either protocol.

use std::io::{self, Seek};
use std::sync::Arc;
use std::time::Duration;

use p11_client::{Error, ErrorCode, Pin, Resolver, SigningKey, client_auth};
use p11_proto::Request;
use rustls::SignatureAlgorithm;
use rustls::SignatureScheme as Scheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey as _};
use rustls::version::{TLS12, TLS13};

use crate::assertions::assert_error;
use crate::fake_server::{FakeServer, TempSocket};
use crate::test_key::{FULL_URI, TestKey, failure};
use crate::tls::{ALL_SCHEMES, handshake};

const SERVERS: [fn(&TempSocket, &TestKey) -> FakeServer; 2] =
    [TempSocket::serve_key, TempSocket::serve_old_key];

#[test]
fn every_kind_of_key_authenticates_in_both_versions_of_tls() {
    for serve in SERVERS {
        for key in TestKey::all() {
            let socket = TempSocket::new();
            let _server = serve(&socket, &key);
            let auth = socket.auth(&key);
            // The key's own preference decides, not the peer's.
            let expected = Some((key.certificate.clone(), key.schemes[0]));
            for version in [&TLS12, &TLS13] {
                let seen = handshake(version, &ALL_SCHEMES, auth.clone()).unwrap();
                assert_eq!(seen, expected, "{version:?}");
            }
        }
    }
}

#[test]
fn the_scheme_that_was_negotiated_is_the_one_that_signs() {
    let key = TestKey::rsa();
    let socket = TempSocket::new();
    let server = socket.serve_key(&key);
    let auth = socket.auth(&key);
    server.take_requests();
    for (version, offered, expected) in [
        (
            &TLS12,
            &[Scheme::RSA_PKCS1_SHA256][..],
            Scheme::RSA_PKCS1_SHA256,
        ),
        (
            &TLS12,
            &[Scheme::RSA_PKCS1_SHA384, Scheme::ED25519],
            Scheme::RSA_PKCS1_SHA384,
        ),
        (&TLS12, &[Scheme::RSA_PSS_SHA512], Scheme::RSA_PSS_SHA512),
        // TLS 1.3 has no PKCS#1: the other one must be chosen, whatever the order.
        (
            &TLS13,
            &[Scheme::RSA_PKCS1_SHA256, Scheme::RSA_PSS_SHA512],
            Scheme::RSA_PSS_SHA512,
        ),
    ] {
        let seen = handshake(version, offered, auth.clone()).unwrap();
        assert_eq!(seen, Some((key.certificate.clone(), expected)));
        let requests = server.take_requests();
        assert!(
            matches!(&requests[..], [Request::Sign(sign)] if sign.scheme == u16::from(expected)),
            "{requests:?}"
        );
    }
}

#[test]
fn a_key_is_asked_for_once_and_each_handshake_costs_one_request() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let server = socket.serve_key(&key);
    let pin = Some(Pin::from("1234"));
    let chain = vec![key.certificate.clone()];
    let auth = client_auth(socket.config(), "pkcs11:object=k", pin.clone(), chain).unwrap();
    for _ in 0..3 {
        let seen = handshake(&TLS13, &ALL_SCHEMES, auth.clone()).unwrap();
        assert!(seen.is_some());
    }

    let requests = server.take_requests();
    let [Request::OpenKey(open), signatures @ ..] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert_eq!((&*open.uri, &open.pin), ("pkcs11:object=k", &pin));
    assert_eq!(signatures.len(), 3);
    for request in signatures {
        let Request::Sign(sign) = request else {
            panic!("{request:?}");
        };
        // The whole URI of the key that was chosen.
        assert_eq!((&*sign.uri, &sign.pin), (FULL_URI, &pin));
        assert_eq!(sign.identity, key.public.identity());
    }
}

#[test]
fn the_certificate_chooses_the_key() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let server = socket.serve_key(&key);
    let open = |certificate: &CertificateDer<'_>| {
        SigningKey::open(&socket.client(), "pkcs11:", None, Some(certificate))
    };
    open(&key.certificate).unwrap();
    assert!(
        matches!(&server.take_requests()[..], [Request::OpenKey(open)]
            if open.spki.as_ref().is_some_and(|spki| **spki == key.public.spki())),
    );
    let error = open(&TestKey::p256().certificate).unwrap_err();
    assert_error(&error, "KeyNotFound", &[]);
}

#[test]
fn a_pin_in_the_uri_is_sent_as_a_pin() {
    let socket = TempSocket::new();
    let server = socket.serve_key(&TestKey::p256());
    let uri = "pkcs11:object=k?pin-value=12%3334";
    let pin = Some(Pin::from("other"));
    let key = SigningKey::open(&socket.client(), uri, pin, None).unwrap();
    let signer = key.choose_scheme(&ALL_SCHEMES).unwrap();
    signer.sign(b"message").unwrap();

    let [Request::OpenKey(open), Request::Sign(sign)] = &server.take_requests()[..] else {
        panic!("not open, then sign");
    };
    let pin = Some(Pin::from("12334"));
    assert_eq!((&*open.uri, &open.pin), ("pkcs11:object=k", &pin));
    assert_eq!(sign.pin, pin);
    let printed = format!("{key:?} {signer:?}");
    assert!(!printed.contains("12334"), "{printed}");
}

#[test]
fn rustls_is_told_the_truth_about_the_key() {
    for key in TestKey::all() {
        let new = (SERVERS[0], FULL_URI, key.schemes.clone());
        let old = (SERVERS[1], "pkcs11:object=k", key.old_schemes());
        for (serve, uri, schemes) in [new, old] {
            let socket = TempSocket::new();
            let _server = serve(&socket, &key);
            let opened = socket.open("pkcs11:object=k?pin-value=1234");
            let algorithm = match key.schemes[0] {
                Scheme::ED25519 => SignatureAlgorithm::ED25519,
                Scheme::RSA_PSS_SHA256 => SignatureAlgorithm::RSA,
                _ => SignatureAlgorithm::ECDSA,
            };
            assert_eq!(opened.algorithm(), algorithm);
            assert_eq!(opened.public_key().unwrap().as_ref(), key.public.spki());
            assert_eq!((opened.uri(), opened.schemes()), (uri, &schemes[..]));
            assert_eq!(opened.identity(), key.public.identity());
            let chain = vec![key.certificate.clone()];
            let certified = CertifiedKey::new(chain, Arc::new(opened));
            certified.keys_match().unwrap();
        }
    }
}

#[test]
fn a_key_that_changed_fails_the_handshake_until_it_is_opened_again() {
    for serve in SERVERS {
        let (before, after) = (TestKey::p256(), TestKey::p256());
        let socket = TempSocket::new();
        let server = serve(&socket, &before);
        let auth = socket.auth(&before);
        drop(server);
        let server = serve(&socket, &after);

        for _ in 0..2 {
            let error = handshake(&TLS13, &ALL_SCHEMES, auth.clone()).unwrap_err();
            assert!(error.to_string().contains("open it again"), "{error}");
            assert_key_changed(&error);
            // As rustls::Stream returns it, and as a library may wrap that.
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_key_changed(&error);
            assert_key_changed(&rustls::OtherError(Arc::new(error)));
        }
        // It does not open the key by itself, and an old server does not sign with the other one.
        let requests = server.take_requests();
        assert!(requests.iter().all(|r| matches!(r, Request::Sign(_))));
        let names = server.take_old_names();
        let harmless = |name| ["Ping", "GetPublicKeyPem"].contains(name);
        assert!(names.iter().all(harmless), "{names:?}");
        assert_eq!(requests.len() + names.len(), 2);

        let seen = handshake(&TLS13, &ALL_SCHEMES, socket.auth(&after)).unwrap();
        assert!(seen.is_some());
    }
}

fn assert_key_changed(error: &(dyn std::error::Error + 'static)) {
    assert_error(Error::in_handshake(error).unwrap(), "KeyChanged", &[]);
}

#[test]
fn a_handshake_that_fails_for_another_reason_is_not_ours() {
    let error = rustls::Error::General("something else".to_owned());
    assert!(Error::in_handshake(&error).is_none());
    assert!(Error::in_handshake(&io::Error::other(error)).is_none());
}

#[test]
fn a_lost_server_fails_the_handshake() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let server = socket.serve_key(&key);
    let config = socket.config().retry_for(Duration::ZERO);
    let auth = client_auth(config, "pkcs11:", None, vec![key.certificate]).unwrap();
    drop(server);
    let error = handshake(&TLS13, &ALL_SCHEMES, auth).unwrap_err();
    assert_error(Error::in_handshake(&error).unwrap(), "NoSocket", &[]);
}

#[test]
fn a_key_that_was_deleted_or_replaced_under_another_id_asks_to_be_opened_again() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let _server = socket.serve({
        let key = key.clone();
        move |request| match request {
            Request::Sign(_) => failure(ErrorCode::KeyNotFound, "no key of the id %01"),
            other => key.answer(other),
        }
    });
    let error = handshake(&TLS13, &ALL_SCHEMES, socket.auth(&key)).unwrap_err();
    let error = Error::in_handshake(&error).unwrap();
    assert!(error.is_key_changed());
    assert_error(
        error,
        "KeyChanged",
        &["open it again", "no key of the id %01"],
    );
}

#[test]
fn why_no_certificate_was_sent_is_told_to_programs_with_what_to_do() {
    let mut pkcs1 = TestKey::rsa();
    pkcs1.schemes = vec![Scheme::RSA_PKCS1_SHA256];
    for (key, remedy) in [
        (pkcs1, "only TLS 1.2 will do"),
        (TestKey::ed25519(), "make the key on P-256"),
    ] {
        let socket = TempSocket::new();
        let _server = socket.serve_key(&key);
        let opened = socket.open("pkcs11:");
        let chain = vec![key.certificate.clone()];
        let resolver = Arc::new(Resolver::new(chain, opened).unwrap());
        assert!(resolver.why_not_sent().is_none());
        let offered = [Scheme::ECDSA_NISTP384_SHA384, Scheme::RSA_PSS_SHA256];
        let seen = handshake(&TLS13, &offered, resolver.clone()).unwrap();
        assert_eq!(seen, None);
        let why = resolver.why_not_sent().unwrap();
        assert_error(&why, "NoCommonScheme", &["no certificate is sent", remedy]);
        let seen = handshake(&TLS12, &ALL_SCHEMES, resolver.clone()).unwrap();
        assert!(seen.is_some() && resolver.why_not_sent().is_none());
    }
}

#[test]
fn a_missing_scheme_is_logged_since_rustls_drops_the_certificate() {
    let key = TestKey::p384();
    let socket = TempSocket::new();
    let _server = socket.serve_key(&key);
    let auth = socket.auth(&key);
    let offered = [Scheme::ECDSA_NISTP256_SHA256, Scheme::RSA_PSS_SHA256];
    let (seen, log) = logged(|| handshake(&TLS13, &offered, auth.clone()).unwrap());
    assert_eq!(seen, None);
    for part in [
        "WARN",
        "no certificate is sent",
        FULL_URI,
        "takes the signature schemes [ECDSA_NISTP256_SHA256, RSA_PSS_SHA256]",
        "can make [ECDSA_NISTP384_SHA384]",
    ] {
        assert!(log.contains(part), "{part:?} is not in: {log}");
    }
    assert_eq!(log.lines().count(), 1, "{log}");

    let (seen, log) = logged(|| handshake(&TLS13, &ALL_SCHEMES, auth.clone()).unwrap());
    assert!(seen.is_some());
    assert_eq!(log, "");
}

impl TempSocket {
    /// Client authentication with the server's key.
    fn auth(&self, key: &TestKey) -> Arc<dyn ResolvesClientCert> {
        let chain = vec![key.certificate.clone()];
        client_auth(self.config(), "pkcs11:", None, chain).unwrap()
    }
}

/// The result of some work, and what it logged.
pub fn logged<T>(work: impl FnOnce() -> T) -> (T, String) {
    let mut log = tempfile::tempfile().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Arc::new(log.try_clone().unwrap()))
        .finish();
    let result = tracing::subscriber::with_default(subscriber, work);
    log.rewind().unwrap();
    (result, io::read_to_string(log).unwrap())
}
