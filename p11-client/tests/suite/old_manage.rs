//! Listing and changing the keys and tokens of an old server.

use p11_client::message::{
    ByteBuf, ChangePin, Class, CreateKey, DeleteKey, GetPublicKey, InitToken, KeySpec, KeyType,
    ListKeys, PinState,
};
use p11_client::{Client, Error, Pin, UriText};
use p11_proto::tedge1::{self, Request, Response, legacy_pem};

use crate::fake_token::TestKey;
use crate::old_server::OldServer;
use crate::place::Place;

#[test]
fn tokens_are_listed_without_what_is_not_told() {
    let answer = Response::ListTokens(vec![tedge1::TokenEntry {
        slot: 7,
        label: "t".to_owned(),
        model: "m".to_owned(),
        manufacturer: "mf".to_owned(),
        serial: "s".to_owned(),
        initialized: true,
        uri: "pkcs11:token=t".to_owned(),
    }]);
    let old = Old::that_answers(&[(Request::ListTokens, answer)]);
    let tokens = old.client.list_tokens().unwrap();
    let token = &tokens.tokens[0];
    assert_eq!((token.slot, token.initialized), (7, true));
    assert_eq!(token.label, "t");
    assert_eq!(token.model, "m");
    assert_eq!(token.manufacturer, "mf");
    assert_eq!(token.serial, "s");
    assert_eq!(token.uri, "pkcs11:token=t");
    assert_eq!(token.user_pin, PinState::Unknown);
    assert!(!tokens.truncated && !token.user_pin_set);
}

#[test]
fn keys_are_listed() {
    let key = |class: &str, key_type: &str, id: &str| tedge1::KeyEntry {
        class: class.to_owned(),
        key_type: key_type.to_owned(),
        label: "k".to_owned(),
        id: id.to_owned(),
        uri: "pkcs11:object=k".to_owned(),
    };
    let list = |keys| {
        let request = tedge1::ListKeys {
            uri: Some("pkcs11:token=t".into()),
            pin: pin(),
        };
        let old = Old::that_answers(&[(Request::ListKeys(request), Response::ListKeys(keys))]);
        old.client
            .list_keys(ListKeys::new("pkcs11:token=t").pin(pin()))
    };
    let listing = list(vec![
        key("private", "EC", "01fe"),
        key("public", "RSA", ""),
        key("private", "Ed25519", "7f"),
        key("secret", "AES", "00"),
    ])
    .unwrap();
    let seen: Vec<_> = listing
        .objects
        .iter()
        .map(|object| (object.class, object.key_type, object.id.to_vec()))
        .collect();
    assert_eq!(
        seen,
        [
            (Class::Private, KeyType::Ec, vec![1, 0xfe]),
            (Class::Public, KeyType::Rsa, vec![]),
            (Class::Private, KeyType::Ed25519, vec![0x7f]),
            (Class::Unknown, KeyType::Unknown, vec![0]),
        ]
    );
    let first = &listing.objects[0];
    assert_eq!((&*first.label, &*first.uri), ("k", "pkcs11:object=k"));
    assert_eq!((first.bits, first.can_sign), (0, None));

    for id in ["0", "0x"] {
        let error = list(vec![key("private", "EC", id)]).unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    }
}

#[test]
fn a_public_key_is_read() {
    for key in [TestKey::p384(), TestKey::rsa()] {
        let request = Request::GetPublicKeyPem(Some("pkcs11:object=k?pin-value=1".into()));
        let answer = Response::GetPublicKeyPem(legacy_pem(&key.public));
        let old = Old::that_answers(&[(request, answer)]);
        let public = old
            .client
            .get_public_key(GetPublicKey::new("pkcs11:object=k?pin-value=1"))
            .unwrap();
        assert_eq!(public.uri, "pkcs11:object=k");
        assert_eq!(*public.spki, *key.public.spki());
        assert_eq!(public.identity, key.public.identity());
    }
}

#[test]
fn keys_are_created() {
    let public = TestKey::p256().public;
    for (key_type, bits, key) in [
        (KeyType::Ec, 256, tedge1::KeySpec::Ec { curve: 256 }),
        (KeyType::Ec, 384, tedge1::KeySpec::Ec { curve: 384 }),
        (KeyType::Rsa, 4096, tedge1::KeySpec::Rsa { bits: 4096 }),
    ] {
        let request = tedge1::CreateKey {
            uri: "pkcs11:token=t".into(),
            key,
            label: "k".to_owned(),
            id: Some(vec![1].into()),
            pin: pin(),
        };
        let answer = tedge1::CreatedKey {
            pem: legacy_pem(&public),
            uri: "pkcs11:token=t;object=k".to_owned(),
        };
        let old = Old::that_answers(&[(Request::CreateKey(request), Response::CreateKey(answer))]);
        let created = old
            .client
            .create_key(
                CreateKey::new("pkcs11:token=t", KeySpec::new(key_type, bits), "k")
                    .pin(pin())
                    .id(ByteBuf::from(vec![1])),
            )
            .unwrap();
        assert_eq!(created.uri, "pkcs11:token=t;object=k");
        assert_eq!((created.key_type, created.bits), (KeyType::Ec, 256));
        assert_eq!(created.identity, public.identity());
    }
}

#[test]
fn keys_are_deleted() {
    let request = tedge1::DeleteKey {
        uri: "pkcs11:object=k".into(),
        pin: pin(),
    };
    let answer = Response::DeleteKey(vec!["a".to_owned(), "b".to_owned()]);
    let old = Old::that_answers(&[(Request::DeleteKey(request), answer)]);
    let request = DeleteKey::new("pkcs11:object=k").pin(pin());
    assert_eq!(old.client.delete_key(request).unwrap().deleted, ["a", "b"]);
}

#[test]
fn a_token_is_new_unless_it_was_there_before() {
    for (before, created) in [("pkcs11:token=other", true), ("pkcs11:token=t", false)] {
        let request = tedge1::InitToken {
            label: "t".to_owned(),
            so_pin: Some(Pin::from("12345678")),
            pin: pin(),
            uri: Some("pkcs11:slot-id=3".into()),
        };
        let old = Old::that_answers(&[
            (
                Request::GetTokensUris,
                Response::GetTokensUris(vec![before.to_owned()]),
            ),
            (
                Request::InitToken(request),
                Response::InitToken("pkcs11:token=t".to_owned()),
            ),
        ]);
        let ready = old
            .client
            .init_token(
                InitToken::new("t")
                    .uri(UriText::from("pkcs11:slot-id=3"))
                    .so_pin(Pin::from("12345678"))
                    .pin(pin()),
            )
            .unwrap();
        assert_eq!((&*ready.uri, ready.created), ("pkcs11:token=t", created));
    }
}

#[test]
fn a_pin_is_changed() {
    let request = tedge1::ChangePin {
        uri: Some("pkcs11:token=t".into()),
        new_pin: Pin::from("5678"),
        old_pin: pin(),
        so_pin: Some(Pin::from("12345678")),
        reset: true,
    };
    let answer = Response::ChangePin("pkcs11:token=t".to_owned());
    let old = Old::that_answers(&[(Request::ChangePin(request), answer)]);
    let changed = old
        .client
        .change_pin(
            ChangePin::new("5678")
                .uri(UriText::from("pkcs11:token=t"))
                .old_pin(pin())
                .so_pin(Pin::from("12345678"))
                .reset(true),
        )
        .unwrap();
    assert_eq!((&*changed.uri, changed.stale), ("pkcs11:token=t", None));
}

/// An old server and a client of it.
struct Old {
    client: Client,
    _server: OldServer,
    _place: Place,
}

impl Old {
    /// It answers these requests, and calls everything else wrong.
    fn that_answers(answers: &[(Request, Response)]) -> Old {
        let place = Place::new();
        let answers = answers.to_vec();
        let server = OldServer::start(&place.socket, move |request| {
            let known = answers.iter().find(|(known, _)| known == request);
            let answer = known.map(|(_, answer)| answer.clone());
            Some(answer.unwrap_or_else(|| Response::Error(format!("wrong: {request:?}"))))
        });
        Old {
            client: place.client(),
            _server: server,
            _place: place,
        }
    }
}

fn pin() -> Option<Pin> {
    Some(Pin::from("1234"))
}
