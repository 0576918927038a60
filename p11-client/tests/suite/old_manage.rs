//! Listing and changing keys and tokens through an old server.

use p11_client::message::ByteBuf;
use p11_client::message::{
    ChangePin, Class, CreateKey, DeleteKey, Deleted, GetPublicKey, InitToken, KeySpec, KeyType,
    ListKeys, ListTokens, ObjectEntry, Objects, PinChanged, PinState, PublicKeyEntry, TokenEntry,
    TokenReady, Tokens,
};
use p11_client::{Error, Pin, UriText};
use p11_proto::tedge1::{self, Request as OldRequest, Response as OldResponse, legacy_pem};
use p11_proto::{Request, Response};

use crate::assertions::assert_error;
use crate::fake_server::TempSocket;
use crate::requests::{call, pin};
use crate::test_key::{TestKey, old_error};

const URI: &str = "pkcs11:token=t;object=k";

/// Sends a request to an old server that knows these requests, and refuses all others.
fn call_old<const N: usize>(
    request: Request,
    answers: [(OldRequest, OldResponse); N],
) -> Result<Response, Error> {
    let socket = TempSocket::new();
    let _server = socket.serve_old(move |request| {
        let answer = answers.iter().find(|(known, _)| known == request);
        let wrong = || old_error(&format!("wrong: {request:?}"));
        Some(answer.map_or_else(wrong, |(_, answer)| answer.clone()))
    });
    call(&socket.client(), request)
}

#[test]
fn tokens_are_listed_without_what_is_not_told() {
    let request = Request::ListTokens(ListTokens::default());
    let answer = OldResponse::ListTokens(vec![tedge1::TokenEntry {
        slot: 7,
        label: "t".to_owned(),
        model: "m".to_owned(),
        manufacturer: "mf".to_owned(),
        serial: "s".to_owned(),
        initialized: true,
        uri: URI.to_owned(),
    }]);
    let expected = TokenEntry::new(7, URI)
        .label("t")
        .model("m")
        .manufacturer("mf")
        .serial("s")
        .initialized(true)
        .user_pin_set(false)
        .user_pin(PinState::Unknown)
        .so_pin(PinState::Unknown);
    assert_eq!(
        call_old(request, [(OldRequest::ListTokens, answer)]).unwrap(),
        Response::Tokens(Tokens::new(vec![expected]))
    );
}

#[test]
fn keys_are_listed() {
    let list = |class: &str, key_type: &str, id: &str| {
        let request = ListKeys::new(URI).pin(pin());
        let old_request = tedge1::ListKeys {
            uri: Some(URI.into()),
            pin: Some(pin()),
        };
        let key = tedge1::KeyEntry {
            class: class.to_owned(),
            key_type: key_type.to_owned(),
            label: "k".to_owned(),
            id: id.to_owned(),
            uri: URI.to_owned(),
        };
        let answer = OldResponse::ListKeys(vec![key]);
        call_old(
            Request::ListKeys(request),
            [(OldRequest::ListKeys(old_request), answer)],
        )
    };
    for (from, class, key_type, id) in [
        (
            ("private", "EC", "01fe"),
            Class::Private,
            KeyType::Ec,
            vec![1, 0xfe],
        ),
        (("public", "RSA", ""), Class::Public, KeyType::Rsa, vec![]),
        (
            ("private", "Ed25519", "7F"),
            Class::Private,
            KeyType::Ed25519,
            vec![0x7f],
        ),
        (
            ("secret", "AES", "00"),
            Class::Unknown,
            KeyType::Unknown,
            vec![0],
        ),
    ] {
        let expected = ObjectEntry::new(class, key_type, "k", id, URI);
        assert_eq!(
            list(from.0, from.1, from.2).unwrap(),
            Response::Objects(Objects::new(vec![expected]))
        );
    }
    for id in ["0", "0x"] {
        let error = list("private", "EC", id).unwrap_err();
        assert_error(&error, "Protocol", &["not in hex"]);
    }
}

#[test]
fn a_public_key_is_read() {
    for key in TestKey::all() {
        let request = Request::GetPublicKey(GetPublicKey::new("pkcs11:object=k?pin-value=1"));
        let old_request = OldRequest::GetPublicKeyPem(Some("pkcs11:object=k?pin-value=1".into()));
        let answer = OldResponse::GetPublicKeyPem(legacy_pem(&key.public));
        let expected = PublicKeyEntry::new("pkcs11:object=k", &key.public);
        assert_eq!(
            call_old(request, [(old_request, answer)]).unwrap(),
            Response::PublicKey(expected)
        );
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
        let request = CreateKey::new("pkcs11:token=t", KeySpec::new(key_type, bits), "k");
        let request = request.id(ByteBuf::from([1])).pin(pin());
        let old_request = tedge1::CreateKey {
            uri: request.uri.clone(),
            key,
            label: "k".to_owned(),
            id: request.id.clone(),
            pin: Some(pin()),
        };
        let answer = tedge1::CreatedKey {
            pem: legacy_pem(&public),
            uri: URI.to_owned(),
        };
        let answer = (
            OldRequest::CreateKey(old_request),
            OldResponse::CreateKey(answer),
        );
        // The key that is answered, whatever was asked for.
        let expected = PublicKeyEntry::new(URI, &public);
        assert_eq!(
            call_old(Request::CreateKey(request), [answer]).unwrap(),
            Response::PublicKey(expected)
        );
    }
}

#[test]
fn keys_are_deleted() {
    let request = DeleteKey::new(URI).pin(pin());
    let old_request = tedge1::DeleteKey {
        uri: URI.into(),
        pin: Some(pin()),
    };
    let deleted = vec!["a".to_owned(), "b".to_owned()];
    let answer = OldResponse::DeleteKey(deleted.clone());
    assert_eq!(
        call_old(
            Request::DeleteKey(request),
            [(OldRequest::DeleteKey(old_request), answer)]
        )
        .unwrap(),
        Response::Deleted(Deleted::new(deleted))
    );
}

#[test]
fn a_token_is_new_unless_it_was_there_before() {
    for (before, created) in [("pkcs11:token=other", true), (URI, false)] {
        let slot = UriText::from("pkcs11:slot-id=3");
        let so_pin = Pin::from("12345678");
        let old_request = tedge1::InitToken {
            label: "t".to_owned(),
            so_pin: Some(so_pin.clone()),
            pin: Some(pin()),
            uri: Some(slot.clone()),
        };
        let tokens = OldResponse::GetTokensUris(vec![before.to_owned()]);
        let answer = OldResponse::InitToken(URI.to_owned());
        let answers = [
            (OldRequest::GetTokensUris, tokens),
            (OldRequest::InitToken(old_request), answer),
        ];
        let request = InitToken::new("t").uri(slot).so_pin(so_pin).pin(pin());
        assert_eq!(
            call_old(Request::InitToken(request), answers).unwrap(),
            Response::TokenReady(TokenReady::new(URI, created))
        );
    }
}

#[test]
fn a_pin_is_changed() {
    let token = UriText::from("pkcs11:token=t");
    let so_pin = Pin::from("12345678");
    let old_request = tedge1::ChangePin {
        uri: Some(token.clone()),
        new_pin: Pin::from("5678"),
        old_pin: Some(pin()),
        so_pin: Some(so_pin.clone()),
        reset: true,
    };
    let request = ChangePin::new("5678").uri(token).old_pin(pin());
    let request = Request::ChangePin(request.so_pin(so_pin).reset(true));
    let answer = OldResponse::ChangePin(URI.to_owned());
    assert_eq!(
        call_old(request, [(OldRequest::ChangePin(old_request), answer)]).unwrap(),
        Response::PinChanged(PinChanged::new(URI))
    );
}
