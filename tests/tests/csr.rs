//! Certificate requests and self-signed certificates of keys in a token, verified by openssl.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{fs, path::PathBuf, process::Command, time::Duration};

use p11_client::{
    CertificateParams, Client, Config, Scheme, SigningKey, X509Signature,
    x509_cert::{
        builder::Builder,
        der::{EncodePem, pem::LineEnding},
        ext::pkix::BasicConstraints,
        request::RequestBuilder,
        time::Validity,
    },
};
use p11_tests::{
    keys::{KeyKind, KeySpec},
    server::Server,
    softhsm::SoftHsm,
    tools::command,
};
use tempfile::TempDir;

const PIN: &str = "482915";

/// Each kind of key, and the scheme of a request in the words of openssl.
const KINDS: [(KeyKind, &str); 7] = [
    (KeyKind::P256, "ecdsa-with-SHA256"),
    (KeyKind::P384, "ecdsa-with-SHA384"),
    (KeyKind::P521, "ecdsa-with-SHA512"),
    (KeyKind::Rsa2048, "sha256WithRSAEncryption"),
    (KeyKind::Rsa3072, "sha256WithRSAEncryption"),
    (KeyKind::Rsa4096, "sha256WithRSAEncryption"),
    (KeyKind::Ed25519, "ED25519"),
];

struct Setup {
    server: Server,
    folder: TempDir,
    _hsm: SoftHsm,
}

impl Setup {
    fn new(kind: KeyKind) -> Self {
        let hsm = SoftHsm::new();
        let token = hsm.init_token("device", PIN, "771122");
        hsm.generate(&token, &KeySpec::new(kind, "key", &[1]));
        Setup {
            server: Server::builder().softhsm(&hsm).pin(PIN).start(),
            folder: tempfile::tempdir().unwrap(),
            _hsm: hsm,
        }
    }

    fn key(&self) -> SigningKey {
        let client = Client::new(Config::new(self.server.socket()));
        SigningKey::open(&client, "pkcs11:token=device", None, None).unwrap()
    }

    fn pem(&self, name: &str, made: &impl EncodePem) -> PathBuf {
        let file = self.folder.path().join(name);
        fs::write(&file, made.to_pem(LineEnding::LF).unwrap()).unwrap();
        file
    }

    /// What openssl says of a request whose signature it has verified.
    fn verified_request(&self, request: &impl EncodePem) -> String {
        let file = self.pem("request.pem", request);
        let said = openssl(&["req", "-verify", "-noout", "-text", "-in"], &file);
        assert!(said.contains("self-signature verify OK"), "{said}");
        said
    }
}

/// What openssl says of a file, on either stream.
fn openssl(arguments: &[&str], file: &PathBuf) -> String {
    let mut openssl: Command = command("openssl");
    let output = openssl.args(arguments).arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

fn device() -> CertificateParams {
    let params = CertificateParams::new("CN=gw-0001,O=Maker").unwrap();
    let names = [
        "DNS:gw-0001.local",
        "IP:192.0.2.1",
        "email:gw@maker.example",
        "URI:urn:dev:1",
    ];
    let params = names
        .iter()
        .fold(params, |params, name| params.san(name).unwrap());
    let not_an_authority = BasicConstraints {
        ca: false,
        path_len_constraint: None,
    };
    params
        .key_usage("digitalSignature")
        .and_then(|params| params.extended_key_usage("clientAuth"))
        .and_then(|params| params.extension(&not_an_authority))
        .unwrap()
}

#[track_caller]
fn assert_says_what_was_asked_for(said: &str, algorithm: &str) {
    for text in [
        "Subject: O = Maker, CN = gw-0001",
        "DNS:gw-0001.local, IP Address:192.0.2.1, email:gw@maker.example, URI:urn:dev:1",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                TLS Web Client Authentication\n",
        "CA:FALSE",
        &format!("Signature Algorithm: {algorithm}\n"),
    ] {
        let found = said.replace("                    ", "                ");
        assert!(found.contains(text), "{text:?} is not in {said}");
    }
}

#[test]
fn each_kind_of_key_makes_requests_and_self_signed_certificates() {
    for (kind, algorithm) in KINDS {
        let setup = Setup::new(kind);
        let key = setup.key();
        let request = device().request(&key).unwrap();
        assert_says_what_was_asked_for(&setup.verified_request(&request), algorithm);

        let day = Validity::from_now(Duration::from_secs(24 * 60 * 60)).unwrap();
        let certificate = device().self_signed(&key, day).unwrap();
        let file = setup.pem("certificate.pem", &certificate);
        let said = openssl(&["x509", "-noout", "-text", "-in"], &file);
        assert_says_what_was_asked_for(&said, algorithm);
        assert!(said.contains("Version: 3"), "{said}");
        assert!(said.contains("Issuer: O = Maker, CN = gw-0001"), "{said}");
        assert!(said.contains("X509v3 Subject Key Identifier"), "{said}");
        let authority = file.to_str().unwrap();
        let verify = ["verify", "-check_ss_sig", "-CAfile", authority];
        let verdict = openssl(&verify, &file);
        assert!(verdict.ends_with("certificate.pem: OK\n"), "{verdict}");
    }
}

#[test]
fn a_request_says_no_more_than_it_was_told_and_two_certificates_have_two_numbers() {
    let setup = Setup::new(KeyKind::P256);
    let key = setup.key();
    let params = CertificateParams::new("CN=gw-0001").unwrap();
    let request = params.request(&key).unwrap();
    setup.verified_request(&request);
    let parts = openssl(&["asn1parse", "-in"], &setup.pem("plain.pem", &request));
    assert!(!parts.contains("Extension Request"), "{parts}");

    let day = Validity::from_now(Duration::from_secs(24 * 60 * 60)).unwrap();
    let numbers = [(); 2].map(|()| {
        let certificate = params.self_signed(&key, day).unwrap();
        certificate.tbs_certificate().serial_number().clone()
    });
    assert_ne!(numbers[0], numbers[1]);
}

#[test]
fn an_rsa_key_makes_requests_with_pss_too() {
    let setup = Setup::new(KeyKind::Rsa2048);
    let key = setup.key();
    for (scheme, hash, salt) in [
        (Scheme::RsaPssSha256, "sha256", "0x20"),
        (Scheme::RsaPssSha384, "sha384", "0x30"),
        (Scheme::RsaPssSha512, "sha512", "0x40"),
    ] {
        let request = device().scheme(scheme).request(&key).unwrap();
        let said = setup.verified_request(&request);
        for text in [
            "Signature Algorithm: rsassaPss",
            &format!("Hash Algorithm: {hash}"),
            &format!("mgf1 with {hash}"),
            &format!("Salt Length: {salt}"),
        ] {
            assert!(said.contains(text), "{text:?} is not in {said}");
        }
    }
}

#[test]
fn what_a_key_cannot_make_is_refused_before_anything_is_signed() {
    let setup = Setup::new(KeyKind::P256);
    let key = setup.key();
    let error = device().scheme(Scheme::Ed25519).request(&key).unwrap_err();
    assert_eq!(error.code(), "UnsupportedScheme");
    assert!(error.to_string().contains("ed25519"), "{error}");
    let twice = device().extension(&BasicConstraints {
        ca: true,
        path_len_constraint: None,
    });
    let error = twice.unwrap().request(&key).unwrap_err();
    assert_eq!(error.code(), "CertificateParams");
    assert!(error.to_string().contains("twice"), "{error}");
}

/// As a stranger to this crate would write it.
#[test]
fn the_builders_of_x509_cert_take_a_key_with_its_scheme() {
    let setup = Setup::new(KeyKind::P384);
    let signer = setup.key().with_scheme(Scheme::EcdsaP384Sha384).unwrap();
    let request = RequestBuilder::new("CN=gw-0001".parse().unwrap()).unwrap();
    let request = request.build::<_, X509Signature>(&signer).unwrap();
    let said = setup.verified_request(&request);
    assert!(said.contains("ecdsa-with-SHA384"), "{said}");
}
