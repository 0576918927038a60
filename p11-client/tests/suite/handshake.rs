//! TLS handshakes with a key that is somewhere else: what the peer sees, what the token is asked.

use std::io;
use std::sync::{Arc, Mutex};

use p11_client::{Config, Error, ErrorCode, Pin, Resolver, SigningKey};
use p11_proto::Request;
use rustls::SignatureScheme as Scheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey as _;
use rustls::version::{TLS12, TLS13};
use rustls::{SignatureAlgorithm, SupportedProtocolVersion};

use crate::fake_server::{FakeServer, Reaction};
use crate::fake_token::{FULL_URI, TestKey, Token};
use crate::tls::Peer;

const ALL_SCHEMES: [Scheme; 9] = [
    Scheme::RSA_PKCS1_SHA256,
    Scheme::RSA_PKCS1_SHA384,
    Scheme::RSA_PKCS1_SHA512,
    Scheme::RSA_PSS_SHA512,
    Scheme::RSA_PSS_SHA384,
    Scheme::RSA_PSS_SHA256,
    Scheme::ECDSA_NISTP384_SHA384,
    Scheme::ECDSA_NISTP256_SHA256,
    Scheme::ED25519,
];

#[test]
fn every_kind_of_key_authenticates_in_both_versions_of_tls() {
    for key in [
        TestKey::p256(),
        TestKey::p384(),
        TestKey::ed25519(),
        TestKey::rsa(),
    ] {
        for version in [&TLS12, &TLS13] {
            let token = Token::with(&key);
            let seen = peer(version, &ALL_SCHEMES)
                .handshake(token.resolver(&key))
                .unwrap();
            // The key's own preference decides, not the peer's.
            assert_eq!(
                seen,
                Some((key.certificate.clone(), key.schemes[0])),
                "{version:?}"
            );
        }
    }
}

#[test]
fn the_scheme_that_was_negotiated_is_the_one_that_signs() {
    let key = TestKey::rsa();
    let token = Token::with(&key);
    let auth = token.resolver(&key);
    token.take_requests();
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
        // TLS 1.3 has no PKCS#1: what is left must be chosen, whatever the order.
        (
            &TLS13,
            &[Scheme::RSA_PKCS1_SHA256, Scheme::RSA_PSS_SHA512],
            Scheme::RSA_PSS_SHA512,
        ),
    ] {
        let seen = peer(version, offered).handshake(auth.clone()).unwrap();
        assert_eq!(seen, Some((key.certificate.clone(), expected)));
        let [Request::Sign(sign)] = &token.take_requests()[..] else {
            panic!("not one signature");
        };
        assert_eq!(sign.scheme, u16::from(expected));
    }
}

#[test]
fn a_key_is_asked_for_once_and_each_handshake_costs_one_request() {
    let key = TestKey::p256();
    let token = Token::with(&key);
    let pin = Some(Pin::from("1234"));
    let opened = SigningKey::open(&token.client, "pkcs11:object=k", pin.clone(), None).unwrap();
    let auth = Arc::new(Resolver::new(vec![key.certificate.clone()], opened).unwrap());
    for _ in 0..3 {
        peer(&TLS13, &ALL_SCHEMES)
            .handshake(auth.clone())
            .unwrap()
            .unwrap();
    }

    let requests = token.take_requests();
    assert_eq!(requests.len(), 4, "{requests:?}");
    assert!(
        matches!(&requests[0], Request::OpenKey(open) if *open.uri == *"pkcs11:object=k" && open.pin == pin),
        "{requests:?}"
    );
    for request in &requests[1..] {
        let Request::Sign(sign) = request else {
            panic!("{request:?}");
        };
        assert_eq!(
            *sign.uri, *FULL_URI,
            "the whole URI of the key that was chosen"
        );
        assert_eq!(sign.pin, pin);
        assert_eq!(sign.identity, key.public.identity());
    }
}

#[test]
fn the_certificate_chooses_the_key() {
    let key = TestKey::p256();
    let token = Token::with(&key);
    let open = |certificate: &CertificateDer<'_>| {
        SigningKey::open(&token.client, "pkcs11:", None, Some(certificate))
    };
    open(&key.certificate).unwrap();
    assert!(
        matches!(&token.take_requests()[..], [Request::OpenKey(open)]
            if open.spki.as_ref().is_some_and(|spki| **spki == key.public.spki())),
    );
    let error = open(&TestKey::p256().certificate).unwrap_err();
    assert!(matches!(error, Error::Server(failure) if failure.code == ErrorCode::KeyNotFound));
}

#[test]
fn a_pin_in_the_uri_travels_as_a_pin() {
    let key = TestKey::p256();
    let token = Token::with(&key);
    let uri = "pkcs11:object=k?pin-value=12%3334";
    let key = SigningKey::open(&token.client, uri, Some(Pin::from("other")), None).unwrap();
    let signer = key.choose_scheme(&ALL_SCHEMES).unwrap();
    signer.sign(b"message").unwrap();

    let [Request::OpenKey(open), Request::Sign(sign)] = &token.take_requests()[..] else {
        panic!("not open, then sign");
    };
    assert_eq!(
        (&*open.uri, &open.pin),
        ("pkcs11:object=k", &Some(Pin::from("12334")))
    );
    assert_eq!(sign.pin, open.pin);
    assert!(
        !format!("{key:?} {signer:?}").contains("12334"),
        "{key:?} {signer:?}"
    );
}

#[test]
fn rustls_is_told_the_truth_about_the_key() {
    for (key, algorithm) in [
        (TestKey::p384(), SignatureAlgorithm::ECDSA),
        (TestKey::rsa(), SignatureAlgorithm::RSA),
        (TestKey::ed25519(), SignatureAlgorithm::ED25519),
    ] {
        let token = Token::with(&key);
        let opened = SigningKey::open(&token.client, "pkcs11:", None, None).unwrap();
        assert_eq!(opened.algorithm(), algorithm);
        assert_eq!(opened.public_key().unwrap().as_ref(), key.public.spki());
        assert_eq!(opened.schemes(), key.schemes);
        assert_eq!(opened.uri(), FULL_URI);
        assert_eq!(opened.identity(), key.public.identity());
        let certified =
            rustls::sign::CertifiedKey::new(vec![key.certificate.clone()], Arc::new(opened));
        certified.keys_match().unwrap();
    }
}

#[test]
fn a_key_that_changed_fails_the_handshake_until_it_is_opened_again() {
    let (old, new) = (TestKey::p256(), TestKey::p256());
    let token = Token::with(&old);
    let auth = token.resolver(&old);
    token.replace_key(&new);
    token.take_requests();

    for _ in 0..2 {
        let error = peer(&TLS13, &ALL_SCHEMES)
            .handshake(auth.clone())
            .unwrap_err();
        assert!(error.to_string().contains("open it again"), "{error}");
        assert!(matches!(
            Error::in_handshake(&error),
            Some(Error::Server(failure)) if failure.code == ErrorCode::KeyChanged
        ));
        // As rustls::Stream returns it, and as a library may wrap that.
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        assert!(matches!(
            Error::in_handshake(&error),
            Some(Error::Server(_))
        ));
        let error = rustls::OtherError(Arc::new(error));
        assert!(matches!(
            Error::in_handshake(&error),
            Some(Error::Server(_))
        ));
    }
    let requests = token.take_requests();
    assert!(
        matches!(&requests[..], [Request::Sign(_), Request::Sign(_)]),
        "it does not open the key by itself: {requests:?}"
    );
    peer(&TLS13, &ALL_SCHEMES)
        .handshake(token.resolver(&new))
        .unwrap()
        .unwrap();
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
    let token = Token::with(&key);
    let config = Config::new(token.socket()).retry_for(std::time::Duration::ZERO);
    let auth = p11_client::client_auth(config, "pkcs11:", None, vec![key.certificate]).unwrap();
    drop(token);
    let error = peer(&TLS13, &ALL_SCHEMES).handshake(auth).unwrap_err();
    assert!(
        matches!(Error::in_handshake(&error), Some(Error::NoSocket { .. })),
        "{error:?}"
    );
}

#[test]
fn a_missing_scheme_is_logged_since_rustls_drops_the_certificate() {
    let key = TestKey::p384();
    let token = Token::with(&key);
    let auth = token.resolver(&key);
    let offered = [Scheme::ECDSA_NISTP256_SHA256, Scheme::RSA_PSS_SHA256];
    let (seen, log) = logged(|| peer(&TLS13, &offered).handshake(auth.clone()).unwrap());
    assert_eq!(seen, None);
    for part in [
        "WARN",
        "no client certificate is sent",
        FULL_URI,
        "offered=[ECDSA_NISTP256_SHA256, RSA_PSS_SHA256]",
        "available=[ECDSA_NISTP384_SHA384]",
    ] {
        assert!(log.contains(part), "{part:?} is not in: {log}");
    }
    assert_eq!(log.lines().count(), 1, "{log}");

    let (seen, log) = logged(|| peer(&TLS13, &ALL_SCHEMES).handshake(auth.clone()).unwrap());
    assert!(seen.is_some());
    assert_eq!(log, "");
}

#[test]
fn a_key_that_cannot_be_understood_is_the_servers_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p11.sock");
    let key = TestKey::p256();
    let _server = FakeServer::start(&path, move |_| {
        Reaction::Answer(key.answer_with_spki(&[0x30, 0x00]))
    });
    let client = p11_client::Client::new(Config::new(&path));
    let error = SigningKey::open(&client, "pkcs11:", None, None).unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}

impl Token {
    /// The paved path to this token's key.
    fn resolver(&self, key: &TestKey) -> Arc<dyn ResolvesClientCert> {
        let chain = vec![key.certificate.clone()];
        p11_client::client_auth(Config::new(self.socket()), "pkcs11:", None, chain).unwrap()
    }
}

fn peer(version: &'static SupportedProtocolVersion, schemes: &[Scheme]) -> Peer {
    let schemes = schemes.to_vec();
    Peer { version, schemes }
}

/// The result of some work, and what it logged.
fn logged<T>(work: impl FnOnce() -> T) -> (T, String) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || Appending(writer.clone()))
        .finish();
    let result = tracing::subscriber::with_default(subscriber, work);
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    (result, log)
}

struct Appending(Arc<Mutex<Vec<u8>>>);

impl io::Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
