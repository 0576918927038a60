//! `key-file`

use std::fs;

use p11_client::{Client, Config, Identity, LazyKey};
use p11_tests::{
    fixture::Fixture,
    tools::{command, run},
};

use super::{json, tedge_p11};

#[test]
fn both_forms_lead_to_the_key_and_hold_none() {
    let (fixture, server) = Fixture::started();
    let client = Client::new(Config::new(server.socket()));
    for (reader, label) in [
        ("rustls", "PRIVATE KEY"),
        ("openssl", "PKCS#11 PROVIDER URI"),
    ] {
        let file = server.folder().join(reader);
        let out = file.to_str().unwrap();
        let ended = tedge_p11(&server, &["key-file", "key", "--for", reader, "--out", out]);
        assert_eq!(ended.done(), "");
        ended.says(&["leads to key and holds no key"]);
        let pem = fs::read_to_string(&file).unwrap();
        assert!(
            pem.starts_with(&format!("-----BEGIN {label}-----\n")),
            "{pem}"
        );
        // Our own reader takes both.
        let key = LazyKey::from_pem(&client, &pem).unwrap().open().unwrap();
        assert_eq!(
            key.identity().to_string(),
            Identity::of(&fixture.key.spki).unwrap().to_string()
        );
        // pkcs11-provider reads what asn1parse shows here.
        let parsed = run(command("openssl").args(["asn1parse", "-in", out]));
        let parsed = String::from_utf8_lossy(&parsed).into_owned();
        if reader == "openssl" {
            assert!(
                parsed.contains("VISIBLESTRING     :PKCS#11 Provider URI v1.0"),
                "{parsed}"
            );
            assert!(parsed.contains(";object=key;type=private"), "{parsed}");
        }
        tedge_p11(&server, &["key-file", "key", "--out", out]).refused(2, &["not overwritten"]);
    }
    let (code, answer) = json(&server, &["key-file"]);
    assert_eq!(
        (code, &answer["uri"]),
        (0, &"pkcs11:token=device;object=key".into())
    );
}
