//! The identity of a key is the SHA-256 of the public key in its certificate, byte for byte.

use std::fs;

use p11_tests::{
    keys::{Key, KeyKind},
    pki::{Pki, Version},
    tools::{command, run},
};

use super::Store;

/// The SubjectPublicKeyInfo of a certificate that openssl issues for the key, and its SHA-256 in hexadecimal.
fn certified(pki: &Pki, key: &Key) -> (Vec<u8>, String) {
    let certificate = pki.client("a device", &key.spki, Version::V3);
    let pem = run(command("openssl")
        .args(["x509", "-noout", "-pubkey", "-in"])
        .arg(certificate));
    let folder = tempfile::tempdir().unwrap();
    let (file, der) = (folder.path().join("key.pem"), folder.path().join("key.der"));
    fs::write(&file, pem).unwrap();
    run(command("openssl")
        .args(["pkey", "-pubin", "-outform", "DER", "-in"])
        .arg(&file)
        .arg("-out")
        .arg(&der));
    let digest = run(command("openssl").args(["dgst", "-sha256", "-r"]).arg(&der));
    let digest = String::from_utf8_lossy(&digest)
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    (fs::read(&der).unwrap(), digest)
}

#[test]
fn the_identity_is_that_of_the_certificate_for_every_kind_of_key() {
    let store = Store::new();
    let token = store.token("device");
    let pki = Pki::new();
    let kinds = [
        KeyKind::P256,
        KeyKind::P384,
        KeyKind::P521,
        KeyKind::Rsa2048,
        KeyKind::Ed25519,
    ];
    let keys = kinds.map(|kind| store.key_of(kind, &token, &format!("{kind:?}"), kind as u8));
    let server = store.server().start();
    for key in &keys {
        let (spki, digest) = certified(&pki, key);
        let opened = server
            .client()
            .open(&format!("pkcs11:object={}", key.spec.label))
            .unwrap();
        assert_eq!(opened.told().spki.as_ref(), spki, "{:?}", key.spec.kind);
        assert_eq!(
            opened.told().identity.to_string(),
            digest,
            "{:?}",
            key.spec.kind
        );
    }
}
