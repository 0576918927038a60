//! Certificate chains with a key that fits and with one that does not.

use std::sync::Arc;

use p11_client::{Resolver, client_auth};
use p11_proto::spki::Certificate;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SignatureScheme as Scheme};

use crate::assertions::assert_error;
use crate::fake_server::TempSocket;
use crate::handshake::logged;
use crate::test_key::{FULL_URI, TestKey};
use crate::tls::{ALL_SCHEMES, handshake, shown_by};

#[test]
fn a_certificate_of_another_key_is_refused_and_both_are_named() {
    let (key, other) = (TestKey::p256(), TestKey::rsa());
    let socket = TempSocket::new();
    let _server = socket.serve_key(&key);
    let opened = socket.open("pkcs11:");
    let error = Resolver::new(vec![other.certificate], opened).unwrap_err();
    let other = other.public.identity().to_string();
    let key = key.public.identity().to_string();
    let parts = ["do not belong together", &other, &key, FULL_URI];
    assert_error(&error, "Mismatch", &parts);
}

#[test]
fn the_first_certificate_of_a_chain_is_the_keys() {
    let (key, issuer) = (TestKey::p256(), TestKey::p384());
    let socket = TempSocket::new();
    let _server = socket.serve_key(&key);
    let opened = socket.open("pkcs11:");
    let chain = vec![key.certificate.clone(), issuer.certificate.clone()];
    let resolver = Resolver::new(chain.clone(), opened.clone()).unwrap();
    assert!(resolver.has_certs());
    let resolved = ResolvesClientCert::resolve(&resolver, &[], &[]);
    assert_eq!(resolved.unwrap().cert, chain);

    let reversed = vec![issuer.certificate, key.certificate.clone()];
    let refused = Resolver::new(reversed.clone(), opened).unwrap_err();
    let parts = ["certificate 2", "put your own certificate first"];
    assert_error(&refused, "CertificateOrder", &parts);
    // The key is asked for by the first certificate, of a server that can choose by it or not.
    let refused = client_auth(socket.config(), "pkcs11:", None, reversed.clone()).unwrap_err();
    assert_error(&refused, "CertificateOrder", &parts);
    let socket = TempSocket::new();
    let _old_server = socket.serve_old_key(&key);
    let refused = client_auth(socket.config(), "pkcs11:", None, reversed).unwrap_err();
    assert_error(&refused, "CertificateOrder", &parts);
}

#[test]
fn a_certificate_of_x509_version_1_is_accepted() {
    let key = TestKey::with_v1_certificate();
    let socket = TempSocket::new();
    let _server = socket.serve_key(&key);
    let auth = client_auth(socket.config(), "pkcs11:", None, vec![key.certificate]).unwrap();
    let certified = auth.resolve(&[], &[]).unwrap();
    // rustls' own check would refuse it.
    assert!(certified.keys_match().is_err());
}

#[test]
fn without_a_usable_certificate_nothing_is_asked() {
    let socket = TempSocket::new();
    let server = socket.serve_key(&TestKey::p256());
    let garbage = vec![CertificateDer::from_slice(b"garbage")];
    for (chain, code, part) in [
        (vec![], "NoCertificate", "the chain is empty"),
        (garbage, "Certificate", "no DER X.509 certificate"),
    ] {
        let error = client_auth(socket.config(), "pkcs11:", None, chain).unwrap_err();
        assert_error(&error, code, &[part]);
    }
    assert_eq!(server.take_requests(), []);
}

#[test]
fn a_key_that_is_in_no_token_authenticates_too_and_must_fit_its_certificate() {
    let (key, other) = (TestKey::p256(), TestKey::rsa());
    let chain = vec![key.certificate.clone()];
    let resolver = Resolver::new(chain, key.signer.clone()).unwrap();
    let seen = handshake(&TLS13, &ALL_SCHEMES, Arc::new(resolver)).unwrap();
    assert_eq!(seen.unwrap().0, key.certificate);

    let certificate = |of: &TestKey| of.certificate.clone();
    let refused = Resolver::new(vec![certificate(&other)], key.signer.clone()).unwrap_err();
    let identity = key.public.identity().to_string();
    let parts = ["do not belong together", &identity];
    assert_error(&refused, "Mismatch", &parts);
    let chain = vec![certificate(&other), certificate(&key)];
    let refused = Resolver::new(chain, key.signer).unwrap_err();
    assert_error(&refused, "CertificateOrder", &["certificate 2"]);
}

#[test]
fn of_several_keys_the_one_that_the_peer_takes_is_used() {
    let (first, second) = (TestKey::p256(), TestKey::rsa());
    let sockets = [TempSocket::new(), TempSocket::new()];
    let _servers = [sockets[0].serve_key(&first), sockets[1].serve_key(&second)];
    let chain = |key: &TestKey| vec![key.certificate.clone()];
    let ours = sockets.each_ref().map(|socket| socket.open("pkcs11:"));
    let [of_first, of_second] = ours;
    let with_both = Resolver::new(chain(&first), of_first.clone()).unwrap();
    let with_both = with_both.and(chain(&second), of_second).unwrap();
    // The second is of another library.
    let mixed = Resolver::new(chain(&first), of_first).unwrap();
    let mixed = mixed.and(chain(&second), second.signer.clone()).unwrap();
    for resolver in [with_both, mixed] {
        let resolver = Arc::new(resolver);
        let rsa = [Scheme::ED25519, Scheme::RSA_PSS_SHA256];
        let ec = [Scheme::RSA_PKCS1_SHA512, Scheme::ECDSA_NISTP256_SHA256];
        for (offered, key) in [(&ALL_SCHEMES[..], &first), (&rsa, &second), (&ec, &first)] {
            let (seen, log) = logged(|| handshake(&TLS13, offered, resolver.clone()).unwrap());
            assert_eq!(seen.unwrap().0, key.certificate, "{offered:?}");
            assert_eq!(log, "");
            assert!(resolver.why_not_sent().is_none());
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&TLS12, &TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(resolver.clone());
            assert_eq!(shown_by(config, offered), key.certificate, "{offered:?}");
        }
        let (seen, log) = logged(|| handshake(&TLS13, &[Scheme::ED25519], resolver.clone()));
        assert_eq!(seen.unwrap(), None);
        assert!(log.contains("no certificate is sent"), "{log}");
        let why = resolver.why_not_sent().unwrap();
        assert_error(&why, "NoCommonScheme", &[FULL_URI]);
    }
}

#[test]
fn among_keys_that_can_sign_the_peers_authorities_decide() {
    let (first, second) = (TestKey::p256(), TestKey::ed25519());
    let mut authority = rcgen::CertificateParams::default();
    let name = "an authority";
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let pair = rcgen::KeyPair::generate().unwrap();
    let authority = CertificateDer::from(authority.self_signed(&pair).unwrap());
    let chain = vec![second.certificate.clone(), authority.clone()];
    let resolver = Resolver::new(vec![first.certificate.clone()], first.signer).unwrap();
    let resolver = resolver.and(chain, second.signer).unwrap();
    let chosen = |issuers: &[&[u8]], offered: &[Scheme]| {
        let chosen = ResolvesClientCert::resolve(&resolver, issuers, offered);
        chosen.unwrap().cert[0].clone()
    };
    let name = Certificate::parse(&authority).unwrap().subject;
    assert_eq!(
        chosen(&[b"unknown", name], &ALL_SCHEMES),
        second.certificate
    );
    for (issuers, offered) in [
        (&[][..], &ALL_SCHEMES[..]),
        (&[&b"unknown"[..]], &ALL_SCHEMES),
        (&[name], &[Scheme::ECDSA_NISTP256_SHA256]),
    ] {
        assert_eq!(chosen(issuers, offered), first.certificate);
    }
}
