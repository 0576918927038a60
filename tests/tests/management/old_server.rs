//! The client manages tokens through a server that behaves as released ones do.

use p11_client::{
    ErrorCode, Pin,
    message::{ChangePin, Class, InitToken, KeyType},
};
use p11_proto::Identity;
use p11_tests::{
    client::{P256, TestClient, refused},
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::{self, KeyKind},
    old_server::OldServer,
    server::Server,
};

const NEW: &str = "305419";

/// A fixture, the server that does the work, an old one before it, and a client of that.
fn setup() -> (Fixture, Server, OldServer, TestClient) {
    let (fixture, server) = Fixture::started();
    server.secrets().add(NEW);
    let old = OldServer::before(&server);
    let client = TestClient::at(old.socket());
    (fixture, server, old, client)
}

#[test]
fn keys_are_listed_made_and_deleted() {
    let (fixture, _server, old, client) = setup();
    let listed = client.list_keys("pkcs11:token=device").unwrap();
    let classes: Vec<_> = listed.iter().map(|key| key.class).collect();
    assert_eq!(classes, [Class::Private, Class::Public]);
    assert_eq!(
        (listed[0].key_type, &listed[0].id[..]),
        (KeyType::Ec, &[1][..])
    );
    assert_eq!(client.get_public_key(KEY).unwrap().spki, fixture.key.spki);

    let made = client
        .create_key("pkcs11:token=device", P256, "made", Some(&[7]))
        .unwrap();
    let spec = keys::KeySpec::new(KeyKind::P256, "made", &[7]);
    let spki = fixture.hsm.public_key(&fixture.token, &spec);
    assert!(made.spki == spki, "a true SubjectPublicKeyInfo");
    assert_eq!(made.identity, Identity::of(&spki).unwrap());
    let deleted = client.delete_key(&made.uri).unwrap();
    assert_eq!(deleted.len(), 1, "the URI of both halves: {deleted:?}");
    assert_eq!(client.delete_key(&made.uri).unwrap().len(), 0);
    assert_eq!(old.asked()[0], 8, "it was asked what it speaks");
}

#[test]
fn tokens_are_listed_and_made_and_their_pins_changed() {
    let (fixture, _server, _old, client) = setup();
    let device = client.token("device");
    assert!(device.initialized);
    assert_eq!(device.serial, fixture.token.serial);
    assert!(!client.token("").initialized);

    let changed = client.change_pin(ChangePin::new(NEW)).unwrap();
    assert_eq!(changed.uri, device.uri);
    assert!(fixture.takes_pin("device", NEW));
    let so_pin = Some(SO_PIN.into());
    let reset = ChangePin::new(PIN).so_pin(so_pin).reset(true);
    client.change_pin(reset).unwrap();
    assert!(fixture.takes_pin("device", PIN));

    let request = || InitToken::new("new").pin(Pin::from(PIN));
    assert!(client.init_token(request()).unwrap().created);
    assert!(!client.init_token(request()).unwrap().created);
}

#[test]
fn failures_are_recognised_by_their_phrases() {
    let (_stage, _server, _old, client) = setup();
    refused(
        client.list_keys("pkcs11:token=none"),
        ErrorCode::TokenNotFound,
    );
    refused(
        client.get_public_key("pkcs11:object=none"),
        ErrorCode::KeyNotFound,
    );
    let wrong = client.with_pin("000001");
    refused(
        wrong.create_key("pkcs11:", P256, "made", None),
        ErrorCode::PinIncorrect,
    );
}
