//! GetCertificates and ImportCertificate.

use std::{fs, path::Path};

use p11_client::ErrorCode;
use p11_fault_module::Function::C_CreateObject;
use p11_tests::{
    fixture::{Fixture, KEY, refused},
    keys::{KeyKind, KeySpec},
    pki::{self, Pki, Version},
    tools::{command, run},
};

use crate::manager::Manager;

/// A certificate for the key of a fixture.
pub fn certificate_for(fixture: &Fixture) -> Vec<u8> {
    pki::to_der(&Pki::new().client("a device", &fixture.key.spki, Version::V3))
}

/// Certificates of these names, each issued by the one before, the first by itself.
fn chain_of<const N: usize>(folder: &Path, names: [&str; N]) -> [Vec<u8>; N] {
    let file = |name: &str, kind: &str| folder.join(format!("{name}.{kind}"));
    let mut issuer: Option<&str> = None;
    names.map(|name| {
        let mut issue = command("openssl");
        issue
            .args(["req", "-x509", "-nodes", "-newkey", "ec", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-subj", &format!("/CN={name}"), "-out"])
            .arg(file(name, "pem"))
            .arg("-keyout")
            .arg(file(name, "key"));
        if let Some(issuer) = issuer {
            issue.arg("-CA").arg(file(issuer, "pem"));
            issue.arg("-CAkey").arg(file(issuer, "key"));
        }
        run(&mut issue);
        issuer = Some(name);
        pki::to_der(&file(name, "pem"))
    })
}

#[test]
fn a_certificate_comes_first_and_its_issuers_follow() {
    let fixture = Fixture::new(KeyKind::P256);
    let folder = tempfile::tempdir().unwrap();
    let [root, middle, leaf] = chain_of(folder.path(), ["root", "middle", "leaf"]);
    let [foreign] = chain_of(folder.path(), ["foreign"]);
    // Stored, and labelled, in no helpful order.
    let stored = [
        ("middle", middle),
        ("foreign", foreign),
        ("a root", root),
        ("leaf", leaf),
    ];
    for (id, (label, der)) in (2..).zip(&stored) {
        fixture
            .hsm
            .import_certificate(&fixture.token, label, &[id], der);
    }
    let server = fixture.server().start();
    let found = |uri: &str| -> Vec<&str> {
        let found = Manager::of(&server).certificates(uri).unwrap();
        let name = |der: &[u8]| stored.iter().find(|(_, stored)| stored == der).unwrap().0;
        found.iter().map(|found| name(&found.certificate)).collect()
    };
    assert_eq!(found("pkcs11:object=leaf"), ["leaf", "middle", "a root"]);
    assert_eq!(found("pkcs11:id=%05"), ["leaf", "middle", "a root"]);
    assert_eq!(found("pkcs11:object=middle"), ["middle", "a root"]);
    assert_eq!(found("pkcs11:object=none"), [""; 0]);
    let all = found("pkcs11:token=device");
    assert_eq!(all, ["foreign", "leaf", "middle", "a root"]);
}

#[test]
fn the_uri_of_a_certificate_leads_back_to_it() {
    let fixture = Fixture::new(KeyKind::P256);
    let der = certificate_for(&fixture);
    fixture
        .hsm
        .import_certificate(&fixture.token, "key", &[1], &der);
    let server = fixture.server().start();
    let manager = Manager::of(&server);
    let found = manager.certificates(KEY).unwrap().remove(0);
    assert!(found.certificate == der);
    assert!(
        found.uri.ends_with("id=%01;object=key;type=cert"),
        "{}",
        found.uri
    );
    let again = manager.certificates(&found.uri).unwrap().remove(0);
    assert!(again == found);
}

#[test]
fn an_imported_certificate_gets_label_and_id_of_its_key() {
    let fixture = Fixture::new(KeyKind::P256);
    // A key of the same label, so that it is the public key that decides.
    let other = KeySpec::new(KeyKind::P256, "key", &[0]);
    fixture.hsm.generate(&fixture.token, &other);
    let der = certificate_for(&fixture);
    let server = fixture.start();
    let manager = Manager::of(&server);

    let uri = manager.import("pkcs11:token=device", &der).unwrap();
    assert!(uri.ends_with("id=%01;object=key;type=cert"), "{uri}");
    // What another program reads there.
    let file = server.folder().join("read.der");
    run(fixture
        .hsm
        .pkcs11_tool(&fixture.token)
        .args(["--read-object", "--type", "cert"])
        .args(["--label", "key", "--id", "01"])
        .arg("--output-file")
        .arg(&file));
    assert!(fs::read(file).unwrap() == der);

    // Once more is no harm.
    assert_eq!(manager.import(KEY, &der).unwrap(), uri);
    assert_eq!(fixture.faults.count(C_CreateObject), 1);
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let fixture = Fixture::new(KeyKind::P256);
    let (second, _) = fixture.add_token("second");
    let server = fixture.start();
    let manager = Manager::of(&server);
    let der = certificate_for(&fixture);
    // The key is on the other token, or under another name.
    for uri in [second.uri(), "pkcs11:token=device;object=other".into()] {
        let told = refused(manager.import(&uri, &der), ErrorCode::KeyNotFound);
        assert!(told.message.contains("public key"), "{told}");
    }
    let told = refused(
        manager.import("pkcs11:token=device", b"no certificate"),
        ErrorCode::BadRequest,
    );
    assert!(told.message.contains("certificate"), "{told}");
    assert_eq!(fixture.faults.count(C_CreateObject), 0);
}
