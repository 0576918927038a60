//! The client and its key with a server that speaks tedge1 alone.

use p11_client::message::{CreateKey, GetCertificates, ImportCertificate, KeySpec, KeyType, Sign};
use p11_client::{Error, ErrorCode, Pin, SigningKey};
use p11_proto::Scheme;
use p11_proto::tedge1::{self, Request, Response, SigScheme};
use rustls::SignatureScheme as S;
use rustls::sign::SigningKey as _;
use rustls::version::{TLS12, TLS13};

use crate::fake_token::TestKey;
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
        let certified = rustls::sign::CertifiedKey::new(
            vec![key.certificate.clone()],
            std::sync::Arc::new(opened),
        );
        certified.keys_match().unwrap();
    }
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

#[test]
fn a_scheme_that_was_not_offered_is_nonsense() {
    let place = Place::new();
    let _server = OldServer::start(&place.socket, |request| match request {
        Request::ChooseScheme(_) => Some(Response::ChooseScheme(tedge1::ChosenScheme {
            scheme: Some(0x0806),
            algorithm: tedge1::Algorithm::Rsa,
        })),
        _ => None,
    });
    let told = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap_err();
    assert!(matches!(told, Error::Protocol { .. }), "{told:?}");
}

#[test]
fn the_phrases_of_old_servers_have_codes() {
    for (text, code) in [
        (
            "PKCS #11 service failed: Failed to find a signing key: Didn't find a slot to use. The device may be disconnected.",
            ErrorCode::TokenNotFound,
        ),
        (
            "PKCS #11 service failed: Failed to find a signing key: Failed to find a key",
            ErrorCode::KeyNotFound,
        ),
        (
            "PKCS #11 service failed: Failed to find a signing key: The specified PIN is incorrect",
            ErrorCode::PinIncorrect,
        ),
        (
            "Found multiple initialized tokens: a, b",
            ErrorCode::AmbiguousToken,
        ),
        (
            "No token matching the given URI was found",
            ErrorCode::TokenNotFound,
        ),
        ("Failed to parse the received frame", ErrorCode::Unsupported),
        // The first words alone tell nothing.
        (
            "PKCS #11 service failed: Failed to find a signing key: a general error",
            ErrorCode::Unknown,
        ),
    ] {
        let place = Place::new();
        let _server = OldServer::start(&place.socket, move |_| Some(error(text)));
        let told = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap_err();
        assert_eq!(told.to_string(), text);
        assert!(
            matches!(&told, Error::Server(f) if f.code == code),
            "{told:?}"
        );
    }
}

#[test]
fn control_characters_of_the_server_reach_no_terminal() {
    let place = Place::new();
    let _server = OldServer::start(&place.socket, |_| Some(error("no key \u{1b}[2J")));
    let told = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap_err();
    assert_eq!(told.to_string(), r"no key \u{1b}[2J");
}

#[test]
fn what_an_old_server_cannot_do_names_the_version_that_can() {
    let place = Place::new();
    let server = OldServer::with(&place.socket, &TestKey::rsa());
    let client = place.client();
    client.ping().unwrap();
    server.take_requests();
    assert_too_old(&client.status().unwrap_err(), "tell its status");
    let request = GetCertificates {
        uri: "pkcs11:".into(),
        pin: None,
    };
    let told = client.get_certificates(request).unwrap_err();
    assert_too_old(&told, "read certificates");
    let request = ImportCertificate {
        uri: "pkcs11:".into(),
        pin: None,
        certificate: vec![0x30, 0x00].into(),
    };
    let told = client.import_certificate(request).unwrap_err();
    assert_too_old(&told, "store a certificate");
    for (key_type, bits) in [(KeyType::Ec, 521), (KeyType::Ed25519, 0)] {
        let request = create_key(KeySpec { key_type, bits });
        assert_too_old(&client.create_key(request).unwrap_err(), "create keys but");
    }
    let request = Sign {
        uri: "pkcs11:".into(),
        pin: None,
        scheme: Scheme::RsaPssSha512.number(),
        message: vec![1].into(),
        identity: TestKey::rsa().public.identity(),
    };
    assert_too_old(
        &client.sign(request).unwrap_err(),
        "sign with the scheme 0x0806",
    );
    let requests = server.take_requests();
    let only_asked = names(&requests)
        .iter()
        .all(|name| ["Ping", "GetPublicKeyPem"].contains(name));
    assert!(only_asked, "{requests:?}");
}

fn all_keys() -> [TestKey; 4] {
    [
        TestKey::p256(),
        TestKey::p384(),
        TestKey::ed25519(),
        TestKey::rsa(),
    ]
}

fn create_key(key: KeySpec) -> CreateKey {
    CreateKey {
        uri: "pkcs11:".into(),
        pin: None,
        key,
        label: "k".to_owned(),
        id: None,
    }
}

fn error(text: &str) -> Response {
    Response::Error(text.to_owned())
}

fn names(requests: &[Request]) -> Vec<&'static str> {
    requests.iter().map(Request::name).collect()
}

fn assert_too_old(error: &Error, what: &str) {
    assert!(matches!(error, Error::TooOld { .. }), "{error:?}");
    let text = error.to_string();
    for part in [what, "tedge-p11-server 0.1"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
