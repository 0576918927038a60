//! GetCertificates and ImportCertificate.

use std::{fs, path::Path, thread, time::Duration};

use p11_client::{
    ErrorCode,
    message::{ByteBuf, DeleteCertificate},
};
use p11_fault_module::Function::C_CreateObject;
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY},
    keys::KeyKind,
    pki,
    text::assert_contains,
    tools::{command, run},
};

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
        let found = server.client().get_certificates(uri).unwrap();
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
    let der = fixture.certificate();
    fixture
        .hsm
        .import_certificate(&fixture.token, "key", &[1], &der);
    let server = fixture.server().start();
    let client = server.client();
    let found = client.get_certificates(KEY).unwrap().remove(0);
    assert!(found.certificate == der);
    assert!(
        found.uri.ends_with("id=%01;object=key;type=cert"),
        "{}",
        found.uri
    );
    let again = client.get_certificates(&found.uri).unwrap().remove(0);
    assert!(again == found);
}

#[test]
fn a_keys_certificates_are_found_by_its_public_key_the_newest_first() {
    let fixture = Fixture::new(KeyKind::P256);
    let old_key = fixture.add_key(KeyKind::P256, "old", 9);
    let old = fixture.certificate();
    // Certificates tell the time in seconds.
    thread::sleep(Duration::from_millis(1100));
    let new = fixture.certificate();
    let others = pki::certificate_for(&old_key.spki);
    // Other tools use labels and ids of their own, and leave what belonged to an earlier key.
    for (label, id, der) in [("a", 7, &old), ("b", 8, &new), ("key", 1, &others)] {
        fixture
            .hsm
            .import_certificate(&fixture.token, label, &[id], der);
    }
    let server = fixture.start();
    let found = |uri: &str| -> Vec<Vec<u8>> {
        let found = server.client().get_certificates(uri).unwrap();
        found
            .into_iter()
            .map(|it| it.certificate.into_vec())
            .collect()
    };
    for uri in [KEY, "pkcs11:id=%01", "pkcs11:object=key;type=private"] {
        assert!(found(uri) == [new.clone(), old.clone()], "{uri}");
    }
    assert!(found("pkcs11:object=old") == [others.clone()]);
    // By its own name each is found as well.
    assert!(found("pkcs11:object=a") == [old]);
    assert!(found("pkcs11:object=key;type=cert") == [others]);
}

#[test]
fn an_imported_certificate_gets_label_and_id_of_its_key() {
    let fixture = Fixture::new(KeyKind::P256);
    // A key of the same label, so that it is the public key that decides.
    fixture.add_key(KeyKind::P256, "key", 0);
    let der = fixture.certificate();
    let server = fixture.start();
    let client = server.client();

    let uri = client
        .import_certificate("pkcs11:token=device", &der)
        .unwrap();
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
    assert_eq!(client.import_certificate(KEY, &der).unwrap(), uri);
    assert_eq!(fixture.faults.count(C_CreateObject), 1);
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let fixture = Fixture::new(KeyKind::P256);
    let (second, _) = fixture.add_token("second");
    let server = fixture.start();
    let client = server.client();
    let der = fixture.certificate();
    // The key is on the other token, or under another name.
    for uri in [second.uri(), "pkcs11:token=device;object=other".into()] {
        let told = refused(
            client.import_certificate(&uri, &der),
            ErrorCode::KeyNotFound,
        );
        assert!(told.message.contains("public key"), "{told}");
    }
    let told = refused(
        client.import_certificate("pkcs11:token=device", b"no certificate"),
        ErrorCode::BadRequest,
    );
    assert!(told.message.contains("certificate"), "{told}");
    assert_eq!(fixture.faults.count(C_CreateObject), 0);
}

#[test]
fn a_certificate_is_deleted_alone_and_of_several_the_one_that_is_brought() {
    let fixture = Fixture::new(KeyKind::P256);
    let [old, new] = [(); 2].map(|()| fixture.certificate());
    for der in [&old, &new] {
        fixture
            .hsm
            .import_certificate(&fixture.token, "key", &[1], der);
    }
    let server = fixture.start();
    let client = server.client();
    let left = || client.get_certificates(KEY).unwrap();
    let delete = |uri: &str| DeleteCertificate::new(uri);

    let unnamed = client.delete_certificate(delete("pkcs11:token=device"));
    refused(unnamed, ErrorCode::BadRequest);
    let several = refused(
        client.delete_certificate(delete(KEY)),
        ErrorCode::AmbiguousKey,
    );
    assert_contains(&several.message, ["type=cert", "none was deleted"]);
    assert_eq!(left().len(), 2);

    let brought = delete("pkcs11:token=device").certificate(ByteBuf::from(old));
    let deleted = client.delete_certificate(brought.clone()).unwrap();
    assert!(
        deleted[0].ends_with("id=%01;object=key;type=cert"),
        "{deleted:?}"
    );
    assert!(left()[0].certificate == new);
    assert_eq!(client.delete_certificate(brought).unwrap(), [""; 0]);

    client.delete_certificate(delete(KEY)).unwrap();
    assert!(left().is_empty());
    client.open(KEY).unwrap().sign().unwrap();
}
