//! `certificate import`, `show` and `delete`

use std::{fs, path::Path};

use p11_tests::{
    fixture::{Fixture, PIN},
    keys::KeyKind,
    pki::{Pki, Version, to_der},
    text::assert_contains,
    tools::{command, run},
};

use super::{json, tedge_p11};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_certificate_goes_beside_its_key_and_comes_back_as_it_was() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "second", 2);
    let server = fixture.start();
    let pki = Pki::new();
    let certificate = pki.client("gw-0001", &fixture.key.spki, Version::V3);

    let ended = tedge_p11(&server, &["certificate", "import", text(&certificate)]);
    assert_eq!(ended.done(), "pkcs11:token=device;object=key;type=cert");
    assert!(
        ended.stderr.starts_with("CN=gw-0001, by CN=Test CA, 20"),
        "{ended:?}"
    );
    ended.says(&[" days): of key. Stored beside it.\n"]);
    let seen = run(fixture
        .hsm
        .p11tool(&fixture.token)
        .arg("--list-certs")
        .arg("pkcs11:object=key"));
    assert_contains(String::from_utf8_lossy(&seen), ["Label: key", "ID: 01"]);

    let (code, answer) = json(&server, &["certificate", "import", text(&certificate)]);
    assert_eq!(
        (code, &answer["stored"], &answer["certificate"]["subject"]),
        (0, &false.into(), &"CN=gw-0001".into())
    );

    let shown = tedge_p11(&server, &["certificate", "show", "key"]);
    let file = server.folder().join("shown.pem");
    fs::write(&file, shown.done()).unwrap();
    assert_eq!(to_der(&file), to_der(&certificate));
    shown.says(&["CN=gw-0001, by CN=Test CA"]);
    // What import has printed is a name, too.
    let by_uri = tedge_p11(
        &server,
        &[
            "certificate",
            "show",
            "pkcs11:token=device;object=key;type=cert",
        ],
    );
    assert_eq!(by_uri.done(), shown.done());
    tedge_p11(&server, &["certificate", "show", "second"]).refused(
        3,
        &[
            "second has no such certificate on token \"device\"",
            "tedge-p11 certificate import FILE",
        ],
    );
}

#[test]
fn a_certificate_of_no_key_is_shown_beside_the_keys_that_there_are() {
    let (fixture, server) = Fixture::started();
    let other = Fixture::new(KeyKind::P256);
    let pki = Pki::new();
    let certificate = pki.client("other", &other.key.spki, Version::V3);
    let fingerprint = |spki: &[u8]| p11_client::Identity::of(spki).unwrap().to_string();
    tedge_p11(&server, &["certificate", "import", text(&certificate)]).refused(
        3,
        &[
            "(CN=other) is of no key on token \"device\".",
            &format!("  {}   its public key\n", fingerprint(&other.key.spki)),
            &format!("  {}   key\n", fingerprint(&fixture.key.spki)),
            "Nothing was stored.",
        ],
    );
    assert!(
        server
            .client()
            .get_certificates("pkcs11:token=device;type=cert")
            .unwrap()
            .is_empty()
    );
    fs::write(server.folder().join("none.pem"), "no certificate").unwrap();
    tedge_p11(&server, &["certificate", "import", "none.pem"])
        .refused(2, &["none.pem\" has no certificate"]);
}

#[test]
fn of_several_tokens_the_one_with_the_key_is_found() {
    let fixture = Fixture::new(KeyKind::P256);
    let (_, key) = fixture.add_token("other");
    let server = fixture.server().pin(PIN).start();
    let pki = Pki::new();
    let certificate = pki.client("gw-0002", &key.spki, Version::V1);
    let ended = tedge_p11(&server, &["certificate", "import", text(&certificate)]);
    assert_eq!(ended.done(), "pkcs11:token=other;object=key;type=cert");
    tedge_p11(
        &server,
        &[
            "certificate",
            "import",
            text(&certificate),
            "--token",
            "device",
        ],
    )
    .refused(3, &["is of no key on token \"device\""]);
}

#[test]
fn the_issuers_in_the_file_stay_there_and_those_on_the_token_are_shown() {
    let (fixture, server) = Fixture::started();
    let pki = Pki::new();
    let leaf = pki.client("gw-0003", &fixture.key.spki, Version::V3);
    let chain = server.folder().join("chain.pem");
    fs::write(
        &chain,
        [fs::read(&leaf).unwrap(), fs::read(pki.authority()).unwrap()].concat(),
    )
    .unwrap();
    let ended = tedge_p11(&server, &["certificate", "import", "chain.pem"]);
    ended.done();
    ended.says(&["The file has 1 more, of its issuers"]);
    fixture
        .hsm
        .import_certificate(&fixture.token, "ca", &[99], &to_der(&pki.authority()));
    let (code, answer) = json(&server, &["certificate", "show"]);
    let subjects: Vec<_> = answer["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["subject"])
        .collect();
    assert_eq!(
        (code, subjects),
        (0, vec![&"CN=gw-0003".into(), &"CN=Test CA".into()])
    );

    // The CA's certificate is of no key, and stays.
    tedge_p11(&server, &["certificate", "delete", "key"]).done();
    let left = server
        .client()
        .get_certificates("pkcs11:token=device;type=cert")
        .unwrap();
    assert_eq!(left.len(), 1);
}

#[test]
fn of_several_certificates_of_a_key_one_is_named_to_be_deleted() {
    let (fixture, server) = Fixture::started();
    let pki = Pki::new();
    let serials: Vec<_> = ["old", "new"]
        .map(|name| {
            let certificate = pki.client(name, &fixture.key.spki, Version::V3);
            tedge_p11(&server, &["certificate", "import", text(&certificate)]).done();
            let serial = run(command("openssl")
                .args(["x509", "-noout", "-serial", "-in"])
                .arg(&certificate));
            let serial = String::from_utf8_lossy(&serial)
                .trim()
                .replace("serial=", "");
            serial.to_lowercase()
        })
        .into();
    let (_, answer) = json(&server, &["certificate", "show", "key"]);
    assert_eq!(answer["certificates"].as_array().unwrap().len(), 1);
    let (_, answer) = json(&server, &["certificate", "show", "key", "--all"]);
    assert_eq!(answer["certificates"].as_array().unwrap().len(), 2);

    let ended = tedge_p11(&server, &["certificate", "delete", "key"]);
    ended.refused(3, &["key has 2 certificates; which one?"]);
    for serial in &serials {
        ended.says(&[&format!(
            "  tedge-p11 certificate delete key --serial {serial}   # CN="
        )]);
    }
    tedge_p11(&server, &["certificate", "delete", "key", "--serial", "77"])
        .refused(3, &["no such certificate"]);
    let (code, answer) = json(
        &server,
        &["certificate", "delete", "key", "--serial", &serials[0]],
    );
    assert_eq!((code, answer["deleted"].as_array().unwrap().len()), (0, 1));
    let shown = tedge_p11(&server, &["certificate", "show", "key", "--all"]);
    shown.says(&["CN=new"]);
    assert!(!shown.stderr.contains("CN=old"), "{shown:?}");

    tedge_p11(&server, &["certificate", "delete", "key"]).done();
    let again = tedge_p11(&server, &["certificate", "delete", "key"]);
    again.done();
    again.says(&["key has no certificate; nothing was deleted."]);
    // Now nothing keeps a script from deleting the key.
    tedge_p11(&server, &["delete-key", "key", "--yes"]).done();
}
