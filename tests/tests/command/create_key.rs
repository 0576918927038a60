//! `create-key`

use p11_tests::{
    fixture::{Fixture, PIN},
    keys::KeyKind,
    text::assert_contains,
    tools::run,
};

use super::{json, tedge_p11};

#[test]
fn a_key_is_made_once_and_never_leaves_the_token() {
    let (fixture, server) = Fixture::started();
    let ended = tedge_p11(&server, &["create-key", "device-key"]);
    assert_eq!(ended.done(), "pkcs11:token=device;object=device-key");
    ended.says(&["Made on token \"device\": device-key, P-256, it will never leave it."]);
    let seen = run(fixture
        .hsm
        .p11tool(&fixture.token)
        .arg("--list-privkeys")
        .arg("pkcs11:object=device-key"));
    let seen = String::from_utf8_lossy(&seen);
    assert_contains(
        &seen,
        ["CKA_PRIVATE", "CKA_NEVER_EXTRACTABLE", "CKA_SENSITIVE"],
    );

    let again = tedge_p11(&server, &["create-key", "device-key"]);
    assert_eq!(again.done(), "pkcs11:token=device;object=device-key");
    again.says(&[
        "There is a key \"device-key\" already (P-256); nothing was made.",
        "--another",
    ]);
    let (code, answer) = json(&server, &["create-key", "device-key"]);
    assert_eq!((code, &answer["created"]), (0, &false.into()));
    assert_eq!(
        server
            .client()
            .list_keys("pkcs11:token=device;object=device-key")
            .unwrap()
            .len(),
        2
    );

    let another = tedge_p11(
        &server,
        &["create-key", "device-key", "--another", "--id", "07"],
    );
    assert_eq!(
        another.done(),
        "pkcs11:token=device;id=%07;object=device-key"
    );
    tedge_p11(&server, &["create-key", "other", "--id", "key"]).refused(2, &["hexadecimal digits"]);
}

#[test]
fn every_type_is_made_and_another_one_of_the_label_is_no_success() {
    let (_fixture, server) = Fixture::started();
    for (kind, key_type, bits) in [
        ("p256", "EC", 256),
        ("p384", "EC", 384),
        ("p521", "EC", 521),
        ("rsa2048", "RSA", 2048),
        ("ed25519", "Ed25519", 255),
    ] {
        let (code, answer) = json(&server, &["create-key", kind, "--type", kind]);
        assert_eq!(code, 0, "{answer}");
        assert_eq!(
            (&answer["key_type"], &answer["bits"]),
            (&key_type.into(), &bits.into())
        );
        assert_eq!(answer["created"], true);
        // The signature of each is verified.
        let (_, answer) = json(&server, &["sign", "--test", kind]);
        assert_eq!(answer["verified"], true, "{answer}");
    }
    tedge_p11(&server, &["create-key", "p384", "--type", "p256"]).refused(
        1,
        &[
            "is P-384, not P-256; nothing was made",
            "--type p256 --another",
        ],
    );
    tedge_p11(&server, &["create-key", "p384", "--type", "p384"]).done();
}

#[test]
fn with_several_tokens_one_is_named() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("other");
    let server = fixture.server().pin(PIN).start();
    tedge_p11(&server, &["create-key", "new"]).refused(
        3,
        &[
            "2 tokens; which one?",
            "  tedge-p11 create-key new --token pkcs11:token=device\n",
            "  tedge-p11 create-key new --token pkcs11:token=other\n",
        ],
    );
    let ended = tedge_p11(&server, &["create-key", "new", "--token", "other"]);
    assert_eq!(ended.done(), "pkcs11:token=other;object=new");
    let ended = tedge_p11(&server, &["create-key", "device/new"]);
    assert_eq!(ended.done(), "pkcs11:token=device;object=new");
    // The label has a slash where no token is called so, or one is named beside.
    let ended = tedge_p11(&server, &["create-key", "--token", "device", "other/new"]);
    assert_eq!(ended.done(), "pkcs11:token=device;object=other%2Fnew");
    tedge_p11(&server, &["create-key", "new", "--token", "none"])
        .refused(3, &["there is no token \"none\"", "--token"]);
}
