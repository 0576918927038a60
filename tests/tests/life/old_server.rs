//! Our client manages tokens through a server that behaves as released ones do.

use p11_client::{
    ErrorCode,
    message::{ChangePin, Class, InitToken, KeyType},
};
use p11_proto::Identity;
use p11_tests::{
    keys::{self, KeyKind},
    old_server::OldServer,
    server::Server,
    stage::{KEY, PIN, SO_PIN, Stage, refused},
};

use crate::{
    admin::{Admin, P256, pin, token},
    takes_pin,
};

const NEW: &str = "305419";

/// A stage, the server that does the work, an old one before it, and a client of that.
fn setup() -> (Stage, Server, OldServer, Admin) {
    let stage = Stage::new(KeyKind::P256);
    let server = stage.start();
    server.secrets().add(NEW);
    let old = OldServer::before(&server);
    let admin = Admin::at(old.socket());
    (stage, server, old, admin)
}

#[test]
fn keys_are_listed_made_and_deleted() {
    let (stage, _server, old, admin) = setup();
    let listed = admin.keys("pkcs11:token=device").unwrap();
    let classes: Vec<_> = listed.iter().map(|key| key.class).collect();
    assert_eq!(classes, [Class::Private, Class::Public]);
    assert_eq!(
        (listed[0].key_type, &listed[0].id[..]),
        (KeyType::Ec, &[1][..])
    );
    assert_eq!(admin.public_key(KEY).unwrap().spki, stage.key.spki);

    let made = admin
        .create("pkcs11:token=device", P256, "made", Some(&[7]))
        .unwrap();
    let spec = keys::KeySpec::new(KeyKind::P256, "made", &[7]);
    let spki = stage.hsm.public_key(&stage.token, &spec);
    assert!(made.spki == spki, "a true SubjectPublicKeyInfo");
    assert_eq!(made.identity, Identity::of(&spki).unwrap());
    let deleted = admin.delete(&made.uri).unwrap();
    assert_eq!(deleted.len(), 1, "the URI of both halves: {deleted:?}");
    assert_eq!(admin.delete(&made.uri).unwrap().len(), 0);
    assert_eq!(old.asked()[0], 8, "it was asked what it speaks");
}

#[test]
fn tokens_are_listed_and_made_and_their_pins_changed() {
    let (stage, _server, _old, admin) = setup();
    let device = admin.token("device");
    assert!(device.initialized);
    assert_eq!(device.serial, stage.token.serial);
    assert!(!admin.token("").initialized);

    let changed = admin.change_pin(pin(NEW)).unwrap();
    assert_eq!(changed.uri, device.uri);
    assert!(takes_pin(
        &stage,
        "device",
        &["--list-objects", &format!("--pin={NEW}")]
    ));
    let so_pin = Some(SO_PIN.into());
    let reset = ChangePin {
        so_pin,
        reset: true,
        ..pin(PIN)
    };
    admin.change_pin(reset).unwrap();
    assert!(takes_pin(
        &stage,
        "device",
        &["--list-objects", &format!("--pin={PIN}")]
    ));

    let request = || InitToken {
        pin: Some(PIN.into()),
        ..token("new")
    };
    assert!(admin.init(request()).unwrap().created);
    assert!(!admin.init(request()).unwrap().created);
}

#[test]
fn failures_are_told_from_their_phrases() {
    let (_stage, _server, _old, admin) = setup();
    refused(admin.keys("pkcs11:token=none"), ErrorCode::TokenNotFound);
    refused(
        admin.public_key("pkcs11:object=none"),
        ErrorCode::KeyNotFound,
    );
    let wrong = admin.with_pin("000001");
    refused(
        wrong.create("pkcs11:", P256, "made", None),
        ErrorCode::PinIncorrect,
    );
}
