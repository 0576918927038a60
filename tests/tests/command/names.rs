//! What names mean: labels, token/label, URIs.

use std::fs;

use p11_tests::{
    as_user::AsUser,
    fixture::{Fixture, PIN},
    keys::{KeyKind, KeySpec},
};

use super::{CommandLine, tedge_p11};

/// The URI that a name leads to.
fn meant(server: &p11_tests::server::Server, name: &str) -> String {
    tedge_p11(server, &["sign", "--test", name])
        .done()
        .to_owned()
}

#[test]
fn a_label_that_holds_a_slash_is_looked_for_whole_first() {
    let fixture = Fixture::new(KeyKind::P256);
    let (other, _) = fixture.add_token("other");
    let server = fixture.server().pin(PIN).start();
    assert_eq!(meant(&server, "other/key"), "pkcs11:token=other;object=key");
    fixture.hsm.generate(
        &fixture.token,
        &KeySpec::new(KeyKind::P256, "other/key", &[2]),
    );
    assert_eq!(
        meant(&server, "other/key"),
        "pkcs11:token=device;object=other%2Fkey"
    );
    fixture
        .hsm
        .generate(&other, &KeySpec::new(KeyKind::P256, "a/b", &[3]));
    assert_eq!(
        meant(&server, "other/a/b"),
        "pkcs11:token=other;object=a%2Fb"
    );
}

#[test]
fn nothing_is_guessed_among_several() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("other");
    fixture.add_key(KeyKind::Rsa2048, "twin", 2);
    fixture.add_key(KeyKind::P384, "twin", 3);
    let server = fixture.server().pin(PIN).start();
    tedge_p11(&server, &["sign", "--test", "twin"]).refused(
        3,
        &[
            "2 keys on token \"device\"; which one?",
            "  tedge-p11 sign --test 'pkcs11:token=device;id=%02;object=twin'   # RSA-2048\n",
            "  tedge-p11 sign --test 'pkcs11:token=device;id=%03;object=twin'   # P-384\n",
        ],
    );
    for name in ["key", "pkcs11:object=key"] {
        tedge_p11(&server, &["sign", "--test", name]).refused(
            3,
            &[
                "2 keys; which one?",
                "  tedge-p11 sign --test 'pkcs11:token=device;object=key'   # P-256\n",
                "  tedge-p11 sign --test 'pkcs11:token=other;object=key'   # P-256\n",
            ],
        );
    }
    assert_eq!(
        meant(&server, "pkcs11:object=twin;id=%03"),
        "pkcs11:token=device;id=%03;object=twin"
    );
    tedge_p11(&server, &["sign", "--test", "kee"]).refused(
        3,
        &[
            "there is no key \"kee\"",
            "sign --test 'pkcs11:token=device;object=key'",
        ],
    );
    tedge_p11(&server, &["sign", "--test", "pkcs11:id=02"])
        .refused(3, &["the `id` is the text 02; bytes are written `id=%02`"]);
    tedge_p11(&server, &["delete-key", "pkcs11:token=none;object=key"]).refused(
        3,
        &[
            "there is no token pkcs11:token=none;object=key",
            "tedge-p11 tokens",
        ],
    );
    tedge_p11(&server, &["sign", "--test", "pkcs11:label=key"]).refused(2, &["write `object=…`"]);
}

#[test]
fn without_a_name_it_is_the_configured_key() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "second", 2);
    let server = fixture.start();
    tedge_p11(&server, &["sign", "--test"]).refused(
        3,
        &[
            "  tedge-p11 sign --test key   # P-256\n",
            "  tedge-p11 sign --test second   # P-256\n",
        ],
    );
    fs::write(
        server.folder().join("tedge.toml"),
        "[device]\nkey_uri = \"pkcs11:object=second\"\n",
    )
    .unwrap();
    assert_eq!(
        tedge_p11(&server, &["sign", "--test"]).done(),
        "pkcs11:token=device;object=second"
    );
    assert_eq!(meant(&server, "key"), "pkcs11:token=device;object=key");
    fs::write(
        server.folder().join("tedge.toml"),
        "[device]\nkey_uri = second\n",
    )
    .unwrap();
    tedge_p11(&server, &["sign", "--test"]).refused(2, &["tedge.toml line 2"]);
}

#[test]
fn who_may_sign_and_not_list_signs_by_uri() {
    let fixture = Fixture::new(KeyKind::P256);
    let policy = fixture.hsm.folder().join("policy.toml");
    fs::write(
        &policy,
        "[[rule]]\nusers = [54321]\noperations = [\"sign\"]\n",
    )
    .unwrap();
    let server = fixture
        .server()
        .pin(PIN)
        .args(["--policy".as_ref(), policy.as_os_str()])
        .start();
    let user = AsUser::new(&server, 54321, 54321);
    let sign = |name: &str| {
        let sign = CommandLine::new(&server, &["sign", "--test", name]);
        sign.env("TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH", user.socket())
            .run()
    };
    let ended = sign("pkcs11:token=device;object=key");
    assert_eq!(ended.done(), "pkcs11:token=device;object=key");
    ended.says(&["You may not list keys here"]);
    sign("key").refused(7, &["list is not allowed"]);
}
