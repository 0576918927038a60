//! `sign`

use std::fs;

use p11_fault_module::{
    cryptoki_sys::{CKA_EC_POINT, CKO_PUBLIC_KEY},
    object,
};
use p11_tests::{
    fixture::{Fixture, PIN},
    keys::KeyKind,
    tools::{command, run},
};

use super::{CommandLine, json, tedge_p11};

#[test]
fn a_test_proves_key_and_pin_and_prints_the_uri_alone() {
    let (_fixture, server) = Fixture::started();
    let ended = tedge_p11(&server, &["sign", "--test", "key"]);
    assert_eq!(ended.done(), "pkcs11:token=device;object=key");
    assert!(
        ended
            .stderr
            .starts_with("Signature made and verified, ecdsa_secp256r1_sha256, "),
        "{ended:?}"
    );
    let (code, answer) = json(&server, &["sign", "--test"]);
    assert_eq!((code, &answer["verified"]), (0, &true.into()));
}

#[test]
fn a_signature_over_a_file_is_one_that_openssl_takes() {
    let (_fixture, server) = Fixture::started();
    let file = |name: &str| server.folder().join(name);
    fs::write(file("firmware.bin"), "a firmware").unwrap();
    fs::write(
        file("key.pem"),
        tedge_p11(&server, &["public-key", "key"]).done(),
    )
    .unwrap();
    let ended = tedge_p11(
        &server,
        &["sign", "key", "firmware.bin", "--out", "firmware.sig"],
    );
    assert_eq!(ended.done(), "");
    run(command("openssl")
        .args(["dgst", "-sha256", "-verify"])
        .arg(file("key.pem"))
        .arg("-signature")
        .arg(file("firmware.sig"))
        .arg(file("firmware.bin")));

    let before = fs::read(file("firmware.sig")).unwrap();
    tedge_p11(
        &server,
        &["sign", "key", "firmware.bin", "--out", "firmware.sig"],
    )
    .refused(2, &["firmware.sig\" is there already"]);
    assert_eq!(fs::read(file("firmware.sig")).unwrap(), before);
    // What is offered is the whole command line, with the other name in it.
    tedge_p11(&server, &["sign", "kee", "firmware.bin"])
        .refused(3, &["  tedge-p11 sign key firmware.bin   # P-256\n"]);
    tedge_p11(&server, &["sign", "key", "none.bin"]).refused(2, &["none.bin\" cannot be read"]);
    tedge_p11(&server, &["sign", "key", "--test", "--scheme", "ed25519"])
        .refused(2, &["it makes ecdsa_secp256r1_sha256"]);
}

#[test]
fn a_signature_that_the_public_half_does_not_verify_is_not_handed_out() {
    let (fixture, server) = Fixture::started();
    let other = fixture.add_key(KeyKind::P256, "other", 2);
    let point = &other.spki[other.spki.len() - 65..];
    let encoded = [&[4, 65], point].concat();
    fixture
        .faults
        .set([object(CKO_PUBLIC_KEY, "key").answers(CKA_EC_POINT, encoded)]);
    tedge_p11(&server, &["sign", "--test", "key"]).refused(1, &["is not one of key", "broken"]);
}

#[test]
fn a_pin_that_nobody_can_be_asked_for_is_told_with_the_command_that_brings_it() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture
        .server()
        .envs([("TEDGE_DEVICE_CRYPTOKI_PIN", "")])
        .start();
    tedge_p11(&server, &["sign", "--test", "key"])
        .refused(4, &["PIN", "  tedge-p11 sign --test key --pin-file FILE\n"]);
    let sign = |pin: &str| {
        let sign = CommandLine::new(&server, &["sign", "--test", "key", "--pin-env", "THE_PIN"]);
        sign.env("THE_PIN", pin).run()
    };
    sign(PIN).done();
    server.secrets().add("not-the-pin");
    sign("not-the-pin").refused(4, &["PIN"]);
    tedge_p11(
        &server,
        &["sign", "--test", "key", "--pin-env", "NOT_THERE"],
    )
    .refused(2, &["NOT_THERE is not set"]);
    // There is no flag for the PIN itself.
    let ended = tedge_p11(&server, &["sign", "--test", "key", "--pin=x-y-z"]);
    ended.refused(2, &["unexpected argument '--pin'", "--pin-env"]);
    assert!(!ended.stderr.contains("x-y-z"), "{ended:?}");
    tedge_p11(
        &server,
        &["sign", "--test", "pkcs11:object=key?pin-value=x"],
    )
    .refused(2, &["seen by every user"]);
}
