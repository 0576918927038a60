//! Certificate chains with a key that fits and with one that does not.

use p11_client::{Resolver, client_auth};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;

use crate::assertions::assert_error;
use crate::fake_server::TempSocket;
use crate::test_key::{FULL_URI, TestKey};

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
