//! Keys of old servers, where they differ from those of protocol 1.

use p11_client::{Pin, SigningKey};
use p11_proto::spki::PublicKey;
use p11_proto::tedge1::{Algorithm, ChosenScheme, Request, Response, SigScheme, legacy_pem};
use rustls::SignatureScheme as Scheme;
use rustls::sign::SigningKey as _;

use crate::assertions::assert_too_old;
use crate::fake_server::TempSocket;
use crate::test_key::{TestKey, old_error};
use crate::tls::ALL_SCHEMES;

/// A `SubjectPublicKeyInfo` on P-521 without its point of 133 bytes; ring has no such keys.
const P521: [u8; 25] = *b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
    \x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00";

#[test]
fn a_key_on_p521_signs_with_its_scheme() {
    let public = PublicKey::from_spki(&[&P521[..], &[4; 133]].concat()).unwrap();
    let socket = TempSocket::new();
    let server = socket.serve_old(move |request| {
        Some(match request {
            Request::ChooseScheme(choose) => Response::ChooseScheme(ChosenScheme {
                scheme: choose.offered.contains(&0x0603).then_some(0x0603),
                algorithm: Algorithm::Ecdsa,
            }),
            Request::GetPublicKeyPem(_) => Response::GetPublicKeyPem(legacy_pem(&public)),
            _ => Response::Sign(b"as long as one".to_vec().into()),
        })
    });
    let key = socket.open("pkcs11:");
    assert_eq!(key.schemes(), [Scheme::ECDSA_NISTP521_SHA512]);
    let signer = key.choose_scheme(key.schemes()).unwrap();
    assert_eq!(signer.sign(b"m").unwrap(), b"as long as one");
    let requests = server.take_old_requests();
    assert!(signs_with(&requests, SigScheme::EcdsaP521Sha512));
}

#[test]
fn the_scheme_that_was_negotiated_is_the_one_that_signs() {
    let socket = TempSocket::new();
    let server = socket.serve_old_key(&TestKey::rsa());
    let key = socket.open("pkcs11:");
    for (offered, expected) in [
        (Scheme::RSA_PSS_SHA256, SigScheme::RsaPssSha256),
        (Scheme::RSA_PKCS1_SHA256, SigScheme::RsaPkcs1Sha256),
    ] {
        sign(&key, &[offered]);
        let requests = server.take_old_requests();
        assert!(signs_with(&requests, expected), "{requests:?}");
    }
    assert!(key.choose_scheme(&[Scheme::RSA_PSS_SHA512]).is_none());
}

/// Whether the last request is one for a signature with this scheme.
fn signs_with(requests: &[Request], scheme: SigScheme) -> bool {
    matches!(requests, [.., Request::SignWithSigScheme(sign)] if sign.sigscheme == Some(scheme))
}

#[test]
fn the_schemes_are_asked_for_once_and_a_signature_costs_two_requests() {
    let socket = TempSocket::new();
    let server = socket.serve_old_key(&TestKey::p256());
    let key = socket.open("pkcs11:");
    assert_eq!(
        server.take_old_names(),
        ["Ping", "ChooseScheme", "ChooseScheme", "GetPublicKeyPem"]
    );
    for _ in 0..2 {
        sign(&key, &ALL_SCHEMES);
        assert_eq!(
            server.take_old_names(),
            ["GetPublicKeyPem", "SignWithSigScheme"]
        );
    }
}

#[test]
fn uri_and_pin_are_sent_and_any_key_is_no_uri() {
    let socket = TempSocket::new();
    let server = socket.serve_old_key(&TestKey::ed25519());
    for (uri, expected) in [
        ("pkcs11:object=k", Some("pkcs11:object=k".into())),
        ("pkcs11:", None),
    ] {
        let pin = Some(Pin::from("1234"));
        let key = SigningKey::open(&socket.client(), uri, pin.clone(), None).unwrap();
        sign(&key, &ALL_SCHEMES);
        for request in server.take_old_requests() {
            match request {
                Request::Ping => {}
                Request::GetPublicKeyPem(uri) => assert_eq!(uri, expected),
                Request::ChooseScheme(r) => assert_eq!((&r.uri, &r.pin), (&expected, &pin)),
                Request::Sign(r) => assert_eq!((&r.uri, &r.pin), (&expected, &pin)),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_public_key_that_the_server_does_not_export_is_the_certificates() {
    let key = TestKey::p384();
    let socket = TempSocket::new();
    let served = key.clone();
    let _server = socket.serve_old(move |request| match request {
        Request::GetPublicKeyPem(_) => {
            Some(old_error("PKCS #11 service failed: Failed to find a key"))
        }
        request => served.old_answer(request),
    });
    let open = |certificate| SigningKey::open(&socket.client(), "pkcs11:", None, certificate);
    let opened = open(Some(&key.certificate)).unwrap();
    assert_eq!(opened.identity(), key.public.identity());
    sign(&opened, &ALL_SCHEMES);

    assert_too_old(&open(None).unwrap_err(), "tell the public half");
    // All that can be seen is that this certificate is for another kind of key.
    let error = open(Some(&TestKey::p256().certificate)).unwrap_err();
    assert_too_old(&error, "choose the certificate's key");
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let socket = TempSocket::new();
    let _server = socket.serve_old_key(&TestKey::p256());
    let other = TestKey::p256().certificate;
    let error = SigningKey::open(&socket.client(), "pkcs11:", None, Some(&other)).unwrap_err();
    assert_too_old(&error, "choose the certificate's key");
}

#[test]
fn a_server_that_fails_where_no_scheme_fits_is_understood() {
    let key = TestKey::p256();
    let socket = TempSocket::new();
    let served = key.clone();
    let _server = socket.serve_old(move |request| match served.old_answer(request) {
        Some(Response::ChooseScheme(ChosenScheme { scheme: None, .. })) => Some(old_error(
            "PKCS #11 service failed: failed to choose scheme",
        )),
        answer => answer,
    });
    assert_eq!(socket.open("pkcs11:").schemes(), key.schemes);
}

fn sign(key: &SigningKey, offered: &[Scheme]) {
    key.choose_scheme(offered).unwrap().sign(b"m").unwrap();
}
