//! Certificate chains with a key that fits and with one that does not.

use p11_client::{Config, Error, Resolver, SigningKey, client_auth};
use p11_proto::Request;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;

use crate::fake_token::{TestKey, Token};

#[test]
fn a_certificate_of_another_key_is_refused_and_both_are_named() {
    let (key, other) = (TestKey::p256(), TestKey::rsa());
    let token = Token::with(&key);
    let opened = SigningKey::open(&token.client, "pkcs11:", None, None).unwrap();
    let error = Resolver::new(vec![other.certificate], opened).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error:?}");
    let text = error.to_string();
    for part in [
        "do not belong together",
        &other.public.identity().to_string(),
        &key.public.identity().to_string(),
        crate::fake_token::FULL_URI,
    ] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn the_leaf_is_what_counts_in_a_chain() {
    let (key, issuer) = (TestKey::p256(), TestKey::p384());
    let token = Token::with(&key);
    let opened = SigningKey::open(&token.client, "pkcs11:", None, None).unwrap();
    let chain = vec![key.certificate.clone(), issuer.certificate.clone()];
    let resolver = Resolver::new(chain.clone(), opened.clone()).unwrap();
    assert!(resolver.has_certs());
    assert_eq!(resolver.resolve(&[], &[]).unwrap().cert, chain);

    let reversed = vec![issuer.certificate, key.certificate];
    assert!(matches!(
        Resolver::new(reversed, opened),
        Err(Error::Mismatch { .. })
    ));
}

#[test]
fn a_certificate_of_x509_version_1_is_accepted() {
    let key = TestKey::with_v1_certificate();
    let token = Token::with(&key);
    let opened = SigningKey::open(&token.client, "pkcs11:", None, Some(&key.certificate)).unwrap();
    let resolver = Resolver::new(vec![key.certificate], opened).unwrap();
    let certified = resolver.resolve(&[], &[]).unwrap();
    assert!(
        certified.keys_match().is_err(),
        "rustls' own check would refuse it"
    );
}

#[test]
fn without_a_usable_certificate_nothing_is_asked() {
    let token = Token::with(&TestKey::p256());
    for (chain, expected) in [
        (vec![], "the chain is empty"),
        (
            vec![CertificateDer::from_slice(b"garbage")],
            "no DER X.509 certificate",
        ),
    ] {
        let error = client_auth(Config::new(token.socket()), "pkcs11:", None, chain).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let requests: Vec<Request> = token.take_requests();
    assert_eq!(requests, vec![]);
}
