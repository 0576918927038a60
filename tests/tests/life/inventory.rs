//! ListKeys and GetPublicKey: what is public without a PIN, the rest with one.

use p11_client::{
    ErrorCode,
    message::{Class, KeyType, Object},
};
use p11_fault_module::{Function::C_Login, Rule, cryptoki_sys::*, object};
use p11_proto::Identity;
use p11_tests::{
    keys::{KeyKind, KeySpec},
    stage::{KEY, PIN, Stage, refused},
    tools::run,
};

use crate::{admin::Admin, certificates::certificate_for};

/// A stage whose key has a certificate beside it.
fn stage(kind: KeyKind) -> Stage {
    let stage = Stage::new(kind);
    stage
        .hsm
        .import_certificate(&stage.token, "key", &[1], &certificate_for(&stage));
    stage
}

fn classes(objects: &[Object]) -> Vec<Class> {
    objects.iter().map(|object| object.class).collect()
}

const PUBLIC: [Class; 2] = [Class::Public, Class::Certificate];
const ALL: [Class; 3] = [Class::Private, Class::Public, Class::Certificate];

#[test]
fn without_a_pin_what_is_public_is_listed() {
    let stage = stage(KeyKind::P256);
    let server = stage.server().start();
    let listed = Admin::of(&server).keys("pkcs11:token=device").unwrap();
    assert_eq!(classes(&listed), PUBLIC);
    // Nor is the default PIN tried, which nobody has set.
    assert_eq!(stage.faults.count(C_Login), 0);
}

#[test]
fn with_a_pin_everything_is_listed() {
    let stage = stage(KeyKind::Rsa2048);
    let by_server = stage.start();
    let by_request = stage.server().start();
    let admins = [Admin::of(&by_server), Admin::of(&by_request).with_pin(PIN)];
    // SoftHSM may see no token where it starts while another program logs in.
    for admin in &admins {
        admin.token("device");
    }
    for admin in admins {
        let listed = admin.keys("pkcs11:token=device").unwrap();
        assert_eq!(classes(&listed), ALL);
        for object in &listed {
            assert_eq!((object.key_type, object.bits), (KeyType::Rsa, 2048));
            assert_eq!((object.label.as_str(), &object.id[..]), ("key", &[1][..]));
            let kind = match object.class {
                Class::Certificate => "cert".into(),
                class => class.to_string(),
            };
            let names_it = format!("serial={}", stage.token.serial);
            assert!(object.uri.contains(&names_it), "{}", object.uri);
            let ends = format!(";id=%01;object=key;type={kind}");
            assert!(object.uri.ends_with(&ends), "{}", object.uri);
        }
        let [private, public, certificate] = listed.as_slice() else {
            panic!("{listed:?}");
        };
        assert_eq!(private.can_sign, Some(true));
        assert_eq!(private.extractable, Some(false));
        assert_eq!(private.always_authenticate, Some(false));
        for other in [public, certificate] {
            assert_eq!(other.can_sign, None);
            assert_eq!(other.extractable, None);
            assert_eq!(other.always_authenticate, None);
        }
    }
}

#[test]
fn every_kind_of_key_is_told_with_its_size() {
    let stage = Stage::new(KeyKind::P384);
    for (kind, id) in [(KeyKind::P521, 2), (KeyKind::Ed25519, 3)] {
        stage
            .hsm
            .generate(&stage.token, &KeySpec::new(kind, "key", &[id]));
    }
    let server = stage.start();
    let listed = Admin::of(&server).keys("pkcs11:type=private").unwrap();
    let private = listed
        .iter()
        .filter(|object| object.class == Class::Private);
    let kinds: Vec<_> = private
        .map(|object| (object.key_type, object.bits))
        .collect();
    assert_eq!(
        kinds,
        [
            (KeyType::Ec, 384),
            (KeyType::Ec, 521),
            (KeyType::Ed25519, 255)
        ]
    );
}

#[test]
fn what_a_key_can_and_may_is_told() {
    let stage = Stage::new(KeyKind::P256);
    stage.faults.set([
        object(CKO_PRIVATE_KEY, "key").answers(CKA_SIGN, [0]),
        object(CKO_PRIVATE_KEY, "key").answers(CKA_EXTRACTABLE, [1]),
        Rule::always_authenticate("key"),
    ]);
    let server = stage.start();
    let listed = Admin::of(&server).keys(KEY).unwrap();
    let private = &listed[0];
    assert_eq!(private.class, Class::Private);
    assert_eq!(private.can_sign, Some(false));
    assert_eq!(private.extractable, Some(true));
    assert_eq!(private.always_authenticate, Some(true));
}

#[test]
fn a_listing_is_narrowed_by_label_id_and_type() {
    let stage = stage(KeyKind::P256);
    let other = KeySpec::new(KeyKind::P256, "other", &[2]);
    stage.hsm.generate(&stage.token, &other);
    let server = stage.start();
    let listed = |uri: &str| classes(&Admin::of(&server).keys(uri).unwrap());
    assert_eq!(listed("pkcs11:object=key"), ALL);
    assert_eq!(listed("pkcs11:id=%02"), ALL[..2]);
    assert_eq!(listed("pkcs11:object=none"), []);
    assert_eq!(listed("pkcs11:object=key;type=cert"), [Class::Certificate]);
    // Either half names the pair.
    assert_eq!(listed("pkcs11:object=key;type=private"), ALL[..2]);
    assert_eq!(listed("pkcs11:object=key;type=public"), ALL[..2]);
}

#[test]
fn a_wrong_pin_of_the_server_shows_what_is_public_and_one_of_the_request_nothing() {
    let stage = stage(KeyKind::P256);
    let server = stage.server().pin("000001").start();
    let admin = Admin::of(&server);
    for _ in 0..5 {
        assert_eq!(classes(&admin.keys("pkcs11:token=device").unwrap()), PUBLIC);
    }
    assert_eq!(stage.faults.count(C_Login), 1);
    let admin = admin.with_pin("000002");
    refused(admin.keys("pkcs11:token=device"), ErrorCode::PinIncorrect);
}

#[test]
fn a_listing_is_of_one_token() {
    let stage = Stage::new(KeyKind::P256);
    stage.add_token("second");
    let server = stage.start();
    let admin = Admin::of(&server);
    let told = refused(admin.keys("pkcs11:"), ErrorCode::AmbiguousToken);
    for name in ["token=device", "token=second"] {
        assert!(told.message.contains(name), "{told}");
    }
    refused(admin.keys("pkcs11:token=third"), ErrorCode::TokenNotFound);
    let second = admin.keys("pkcs11:token=second").unwrap();
    assert!(second.iter().all(|key| key.uri.contains("token=second")));
}

#[test]
fn a_public_key_is_read_without_a_login() {
    for kind in [KeyKind::P256, KeyKind::Rsa2048, KeyKind::Ed25519] {
        let stage = Stage::new(kind);
        let server = stage.start();
        let public = Admin::of(&server).public_key(KEY).unwrap();
        assert_eq!(public.spki, stage.key.spki);
        assert_eq!(public.identity, Identity::of(&stage.key.spki).unwrap());
        assert!(public.uri.contains("id=%01;object=key"), "{}", public.uri);
        assert_eq!(stage.faults.count(C_Login), 0);
    }
}

#[test]
fn a_public_key_that_only_the_private_one_tells_costs_a_login() {
    let stage = Stage::new(KeyKind::Rsa2048);
    run(stage.hsm.pkcs11_tool(&stage.token).args([
        "--delete-object",
        "--type",
        "pubkey",
        "--label",
        "key",
    ]));
    let server = stage.start();
    let public = Admin::of(&server).public_key(KEY).unwrap();
    assert_eq!(public.spki, stage.key.spki);
    assert_eq!(stage.faults.count(C_Login), 1);
}
