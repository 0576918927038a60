//! ListKeys and GetPublicKey: what is public without a PIN, the rest with one.

use p11_client::{
    ErrorCode,
    message::{Class, KeyType, ObjectEntry},
};
use p11_fault_module::{Faults, Function::C_Login, Rule, cryptoki_sys::*, object};
use p11_proto::{Identity, Request, Response, message::ListKeys};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::{KeyKind, KeySpec},
    server::Server,
    softhsm::SoftHsm,
    text::assert_contains,
};

/// A fixture whose key has a certificate beside it.
fn fixture(kind: KeyKind) -> Fixture {
    let fixture = Fixture::new(kind);
    fixture.store_certificate();
    fixture
}

fn classes(objects: &[ObjectEntry]) -> Vec<Class> {
    objects.iter().map(|object| object.class).collect()
}

/// What is said of a listing.
fn note(server: &Server, uri: &str) -> Option<String> {
    match server.client().ask(&Request::ListKeys(ListKeys::new(uri))) {
        Response::Objects(objects) => objects.note,
        other => panic!("no listing but {other:?}"),
    }
}

const PUBLIC: [Class; 2] = [Class::Public, Class::Certificate];
const ALL: [Class; 3] = [Class::Private, Class::Public, Class::Certificate];

#[test]
fn without_a_pin_what_is_public_is_listed() {
    let fixture = fixture(KeyKind::P256);
    let server = fixture.server().start();
    for _ in 0..3 {
        let listed = server.client().list_keys("pkcs11:token=device").unwrap();
        assert_eq!(classes(&listed), PUBLIC);
        let note = note(&server, "pkcs11:token=device").unwrap();
        assert_contains(note, ["private keys are not shown", "the default PIN"]);
    }
    // The default PIN is none of this token's.
    assert_eq!(fixture.faults.count(C_Login), 1);
}

#[test]
fn the_default_pin_shows_the_same_whatever_is_asked_first() {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", "123456", SO_PIN);
    hsm.generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
    let faults = Faults::new(hsm.module());
    let start = || {
        let builder = Server::builder().module(&Faults::module_path());
        builder.envs(hsm.envs()).envs(faults.envs()).start()
    };
    let server = start();
    let listed = server.client().list_keys("pkcs11:token=device").unwrap();
    assert_eq!(classes(&listed), ALL[..2]);
    server.client().open(KEY).unwrap().sign().unwrap();
    let server = start();
    server.client().open(KEY).unwrap().sign().unwrap();
    assert_eq!(
        server.client().list_keys("pkcs11:token=device").unwrap(),
        listed
    );
    assert_eq!(faults.count(C_Login), 2);
}

#[test]
fn with_a_pin_everything_is_listed() {
    let fixture = fixture(KeyKind::Rsa2048);
    let by_server = fixture.start();
    let by_request = fixture.server().start();
    let admins = [by_server.client(), by_request.client().with_pin(PIN)];
    // SoftHSM may see no token where it starts while another program logs in.
    for client in &admins {
        client.token("device");
    }
    assert_eq!(note(&by_server, "pkcs11:token=device"), None);
    for client in admins {
        let listed = client.list_keys("pkcs11:token=device").unwrap();
        assert_eq!(classes(&listed), ALL);
        for object in &listed {
            assert_eq!((object.key_type, object.bits), (KeyType::Rsa, 2048));
            assert_eq!((object.label.as_str(), &object.id[..]), ("key", &[1][..]));
            let kind = match object.class {
                Class::Certificate => "cert".into(),
                class => class.to_string(),
            };
            let names_it = format!("serial={}", fixture.token.serial);
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
fn every_kind_of_key_is_listed_with_its_size() {
    let fixture = Fixture::new(KeyKind::P384);
    for (kind, id) in [(KeyKind::P521, 2), (KeyKind::Ed25519, 3)] {
        fixture.add_key(kind, "key", id);
    }
    let server = fixture.start();
    let listed = server.client().list_keys("pkcs11:type=private").unwrap();
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
fn what_a_key_can_and_may_is_listed() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([
        object(CKO_PRIVATE_KEY, "key").answers(CKA_SIGN, [0]),
        object(CKO_PRIVATE_KEY, "key").answers(CKA_EXTRACTABLE, [1]),
        Rule::AlwaysAuthenticate("key".into()),
    ]);
    let server = fixture.start();
    let listed = server.client().list_keys(KEY).unwrap();
    let private = &listed[0];
    assert_eq!(private.class, Class::Private);
    assert_eq!(private.can_sign, Some(false));
    assert_eq!(private.extractable, Some(true));
    assert_eq!(private.always_authenticate, Some(true));
}

#[test]
fn a_listing_is_narrowed_by_label_id_and_type() {
    let fixture = fixture(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "other", 2);
    let server = fixture.start();
    let listed = |uri: &str| classes(&server.client().list_keys(uri).unwrap());
    assert_eq!(listed("pkcs11:object=key"), ALL);
    assert_eq!(listed("pkcs11:id=%02"), ALL[..2]);
    assert_eq!(listed("pkcs11:object=none"), []);
    assert_eq!(listed("pkcs11:object=key;type=cert"), [Class::Certificate]);
    // Either half names the pair.
    assert_eq!(listed("pkcs11:object=key;type=private"), ALL[..2]);
    assert_eq!(listed("pkcs11:object=key;type=public"), ALL[..2]);
}

#[test]
fn a_wrong_pin_is_told_whether_the_servers_or_the_requests() {
    let fixture = fixture(KeyKind::P256);
    let server = fixture.server().pin("000001").start();
    let client = server.client();
    for _ in 0..5 {
        let told = refused(
            client.list_keys("pkcs11:token=device"),
            ErrorCode::PinIncorrect,
        );
        assert_contains(&told.message, ["TEDGE_DEVICE_CRYPTOKI_PIN"]);
    }
    assert_eq!(fixture.faults.count(C_Login), 1);
    let client = client.with_pin("000002");
    refused(
        client.list_keys("pkcs11:token=device"),
        ErrorCode::PinIncorrect,
    );
}

#[test]
fn where_another_client_has_logged_in_what_is_private_is_shown_to_its_pin_alone() {
    let fixture = fixture(KeyKind::P256);
    let server = fixture.server().start();
    let client = server.client();
    let with_pin = client.with_pin(PIN);
    with_pin.open(KEY).unwrap().sign().unwrap();
    let uri = "pkcs11:token=device";
    assert_eq!(classes(&client.list_keys(uri).unwrap()), PUBLIC);
    assert_eq!(classes(&with_pin.list_keys(uri).unwrap()), ALL);
    refused(client.open(KEY), ErrorCode::PinRequired);
    refused(
        client.with_pin("000002").list_keys(uri),
        ErrorCode::PinIncorrect,
    );
    assert_eq!(fixture.faults.count(C_Login), 1);
}

#[test]
fn a_listing_is_of_one_token() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = fixture.start();
    let client = server.client();
    let told = refused(client.list_keys("pkcs11:"), ErrorCode::AmbiguousToken);
    assert_contains(&told.message, ["token=device", "token=second"]);
    refused(
        client.list_keys("pkcs11:token=third"),
        ErrorCode::TokenNotFound,
    );
    let second = client.list_keys("pkcs11:token=second").unwrap();
    assert!(second.iter().all(|key| key.uri.contains("token=second")));
}

#[test]
fn a_public_key_is_read_without_a_login() {
    for kind in [KeyKind::P256, KeyKind::Rsa2048, KeyKind::Ed25519] {
        let fixture = Fixture::new(kind);
        let server = fixture.start();
        let public = server.client().get_public_key(KEY).unwrap();
        assert_eq!(public.spki, fixture.key.spki);
        assert_eq!(public.identity, Identity::of(&fixture.key.spki).unwrap());
        assert!(public.uri.contains("id=%01;object=key"), "{}", public.uri);
        assert_eq!(fixture.faults.count(C_Login), 0);
    }
}

#[test]
fn a_public_key_that_only_the_private_one_tells_costs_a_login() {
    let fixture = Fixture::new(KeyKind::Rsa2048);
    fixture.hsm.delete(&fixture.token, Class::Public, &[1]);
    let server = fixture.start();
    let public = server.client().get_public_key(KEY).unwrap();
    assert_eq!(public.spki, fixture.key.spki);
    assert_eq!(fixture.faults.count(C_Login), 1);
}
