//! A key that is opened and used through a server that speaks tedge1 alone.

use std::sync::Arc;

use p11_client::{Error, ErrorCode, Pin, SigningKey};
use p11_proto::tedge1::{Algorithm, ChosenScheme, Request, Response, SigScheme};
use rustls::SignatureScheme as S;
use rustls::sign::SigningKey as _;
use rustls::version::{TLS12, TLS13};

use crate::fake_token::TestKey;
use crate::old_errors::{assert_too_old, error, names};
use crate::old_server::OldServer;
use crate::place::Place;
use crate::tls::Peer;

const ALL_SCHEMES: [S; 7] = [
    S::RSA_PKCS1_SHA256,
    S::RSA_PKCS1_SHA384,
    S::RSA_PSS_SHA512,
    S::RSA_PSS_SHA256,
    S::ECDSA_NISTP384_SHA384,
    S::ECDSA_NISTP256_SHA256,
    S::ED25519,
];

/// A P-521 key, which ring has no support for.
const P521: &str = include_str!("../../../p11-proto/tests/data/legacy-p521.pem");

#[test]
fn every_kind_of_key_authenticates_in_both_versions_of_tls() {
    for key in all_keys() {
        for version in [&TLS12, &TLS13] {
            let place = Place::new();
            let _server = OldServer::with(&place.socket, &key);
            let chain = vec![key.certificate.clone()];
            let auth = p11_client::client_auth(place.config(), "pkcs11:", None, chain).unwrap();
            let schemes = ALL_SCHEMES.to_vec();
            let seen = Peer { version, schemes }.handshake(auth).unwrap();
            let expected = Some((key.certificate.clone(), key.schemes[0]));
            assert_eq!(seen, expected, "{version:?}");
        }
    }
}

#[test]
fn rustls_is_told_the_truth_about_the_key() {
    for key in all_keys() {
        let place = Place::new();
        let _server = OldServer::with(&place.socket, &key);
        let uri = "pkcs11:object=k?pin-value=1234";
        let opened = SigningKey::open(&place.client(), uri, None, None).unwrap();
        assert_eq!(opened.public_key().unwrap().as_ref(), key.public.spki());
        assert_eq!(opened.identity(), key.public.identity());
        assert_eq!(opened.uri(), "pkcs11:object=k");
        let expected = match key.schemes.len() {
            1 => key.schemes.clone(),
            // What tedge1 knows of RSA.
            _ => vec![S::RSA_PSS_SHA256, S::RSA_PKCS1_SHA256],
        };
        assert_eq!(opened.schemes(), expected);
        let certified =
            rustls::sign::CertifiedKey::new(vec![key.certificate.clone()], Arc::new(opened));
        certified.keys_match().unwrap();
    }
}

#[test]
fn a_key_on_p521_signs_with_its_scheme() {
    let place = Place::new();
    let server = OldServer::start(&place.socket, |request| match request {
        Request::ChooseScheme(choose) => Some(Response::ChooseScheme(ChosenScheme {
            scheme: choose.offered.contains(&0x0603).then_some(0x0603),
            algorithm: Algorithm::Ecdsa,
        })),
        Request::GetPublicKeyPem(_) => Some(Response::GetPublicKeyPem(P521.to_owned())),
        _ => Some(Response::Sign(b"signed".to_vec().into())),
    });
    let key = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap();
    assert_eq!(key.schemes(), [S::ECDSA_NISTP521_SHA512]);
    let signer = key.choose_scheme(key.schemes()).unwrap();
    assert_eq!(signer.sign(b"m").unwrap(), b"signed");
    assert!(
        matches!(server.take_requests().last(), Some(Request::SignWithSigScheme(sign))
            if sign.sigscheme == Some(SigScheme::EcdsaP521Sha512))
    );
}

#[test]
fn the_scheme_that_was_negotiated_is_the_one_that_signs() {
    let place = Place::new();
    let server = OldServer::with(&place.socket, &TestKey::rsa());
    let key = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap();
    for (offered, expected) in [
        (S::RSA_PSS_SHA256, SigScheme::RsaPssSha256),
        (S::RSA_PKCS1_SHA256, SigScheme::RsaPkcs1Sha256),
    ] {
        server.take_requests();
        key.choose_scheme(&[offered]).unwrap().sign(b"m").unwrap();
        let requests = server.take_requests();
        assert!(
            matches!(requests.last(), Some(Request::SignWithSigScheme(sign)) if sign.sigscheme == Some(expected)),
            "{requests:?}"
        );
    }
    assert!(key.choose_scheme(&[S::RSA_PSS_SHA512]).is_none());
}

#[test]
fn the_schemes_are_asked_for_once_and_a_signature_costs_two_requests() {
    let place = Place::new();
    let server = OldServer::with(&place.socket, &TestKey::p256());
    let key = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap();
    assert_eq!(
        names(&server.take_requests()),
        ["Ping", "ChooseScheme", "ChooseScheme", "GetPublicKeyPem"]
    );
    for _ in 0..2 {
        let signer = key.choose_scheme(&ALL_SCHEMES).unwrap();
        signer.sign(b"m").unwrap();
        let requests = server.take_requests();
        assert_eq!(names(&requests), ["GetPublicKeyPem", "SignWithSigScheme"]);
    }
}

#[test]
fn uri_and_pin_travel_and_any_key_is_no_uri() {
    let place = Place::new();
    let server = OldServer::with(&place.socket, &TestKey::ed25519());
    for (uri, expected) in [
        ("pkcs11:object=k", Some("pkcs11:object=k".into())),
        ("pkcs11:", None),
    ] {
        let pin = Some(Pin::from("1234"));
        let key = SigningKey::open(&place.client(), uri, pin.clone(), None).unwrap();
        key.choose_scheme(&[S::ED25519])
            .unwrap()
            .sign(b"m")
            .unwrap();
        for request in server.take_requests() {
            match request {
                Request::Ping => {}
                Request::GetPublicKeyPem(uri) => assert_eq!(uri, expected),
                Request::ChooseScheme(r) => {
                    assert_eq!((r.uri, r.pin), (expected.clone(), pin.clone()))
                }
                Request::Sign(r) => assert_eq!((r.uri, r.pin), (expected.clone(), pin.clone())),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_public_key_that_the_server_does_not_have_is_the_certificates() {
    let key = TestKey::p384();
    let place = Place::new();
    let serving = key.clone();
    let _server = OldServer::start(&place.socket, move |request| match request {
        Request::GetPublicKeyPem(_) => Some(error("PKCS #11 service failed: Failed to find a key")),
        request => serving.answer_in_tedge1(request),
    });
    let open = |certificate| SigningKey::open(&place.client(), "pkcs11:", None, certificate);
    let opened = open(Some(&key.certificate)).unwrap();
    assert_eq!(opened.identity(), key.public.identity());
    opened
        .choose_scheme(&ALL_SCHEMES)
        .unwrap()
        .sign(b"m")
        .unwrap();

    let told = open(None).unwrap_err();
    assert_too_old(&told, "tell the public half");
    // Of this certificate all that can be seen is that it is for another kind of key.
    let told = open(Some(&TestKey::p256().certificate)).unwrap_err();
    assert_too_old(&told, "choose the certificate's key");
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let place = Place::new();
    let _server = OldServer::with(&place.socket, &TestKey::p256());
    let other = TestKey::p256().certificate;
    let told = SigningKey::open(&place.client(), "pkcs11:", None, Some(&other)).unwrap_err();
    assert_too_old(&told, "choose the certificate's key");
}

#[test]
fn a_key_that_changed_does_not_sign() {
    let place = Place::new();
    let old = OldServer::with(&place.socket, &TestKey::p256());
    let key = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap();
    drop(old);
    let server = OldServer::with(&place.socket, &TestKey::p256());
    let signer = key.choose_scheme(&ALL_SCHEMES).unwrap();
    let failed = signer.sign(b"m").unwrap_err();
    let told = Error::in_handshake(&failed).unwrap();
    assert!(
        matches!(told, Error::Server(failure) if failure.code == ErrorCode::KeyChanged),
        "{told:?}"
    );
    let requests = server.take_requests();
    assert!(
        !names(&requests).contains(&"SignWithSigScheme"),
        "{requests:?}"
    );
}

#[test]
fn a_server_that_fails_where_no_scheme_fits_is_understood() {
    let key = TestKey::p256();
    let place = Place::new();
    let serving = key.clone();
    let _server = OldServer::start(&place.socket, move |request| {
        match serving.answer_in_tedge1(request) {
            Some(Response::ChooseScheme(chosen)) if chosen.scheme.is_none() => {
                Some(error("PKCS #11 service failed: failed to choose scheme"))
            }
            answer => answer,
        }
    });
    let opened = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap();
    assert_eq!(opened.schemes(), key.schemes);
}

fn all_keys() -> [TestKey; 4] {
    [
        TestKey::p256(),
        TestKey::p384(),
        TestKey::ed25519(),
        TestKey::rsa(),
    ]
}
