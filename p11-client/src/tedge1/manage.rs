//! Listing and changing the keys and tokens of an old server: each request becomes one of tedge1,
//! each response one of protocol 1. What an old server does not tell is false, 0, unknown or absent.

use p11_proto::message::{
    ChangePin, Class, CreateKey, DeleteKey, Deleted, GetPublicKey, InitToken, KeyType, ListKeys,
    Object, Objects, PinChanged, PinState, PublicKey, Token, TokenReady, Tokens,
};
use p11_proto::spki;
use p11_proto::tedge1::{self, KeySpec, Request};

use super::key::{public_key, public_key_of, type_and_bits};
use super::{ask, too_old, uri_or_none};
use crate::error::Error;
use crate::socket::Target;
use crate::uri::{from_hex, without_query};

pub(super) fn list_tokens(server: Target<'_>) -> Result<Tokens, Error> {
    let tokens = ask!(server, Request::ListTokens => ListTokens);
    Ok(Tokens {
        tokens: tokens.into_iter().map(token).collect(),
        truncated: false,
    })
}

pub(super) fn list_keys(request: &ListKeys, server: Target<'_>) -> Result<Objects, Error> {
    let request = tedge1::ListKeys {
        uri: uri_or_none(&request.uri),
        pin: request.pin.clone(),
    };
    let keys = ask!(server, Request::ListKeys(request) => ListKeys);
    let objects = keys.into_iter().map(|key| object(key, server));
    Ok(Objects {
        objects: objects.collect::<Result<_, _>>()?,
        truncated: false,
    })
}

/// The request of tedge1 has no place for a PIN.
pub(super) fn get_public_key(
    request: &GetPublicKey,
    server: Target<'_>,
) -> Result<PublicKey, Error> {
    let public = public_key(&request.uri, server)?;
    Ok(described(&public, without_query(&request.uri).to_owned()))
}

pub(super) fn create_key(request: &CreateKey, server: Target<'_>) -> Result<PublicKey, Error> {
    let kind = (request.key.key_type, u16::try_from(request.key.bits));
    let key = match kind {
        (KeyType::Rsa, Ok(bits)) => KeySpec::Rsa { bits },
        (KeyType::Ec, Ok(curve @ (256 | 384))) => KeySpec::Ec { curve },
        _ => return Err(too_old(server, "create keys but RSA, P-256 and P-384")),
    };
    let request = tedge1::CreateKey {
        uri: request.uri.clone(),
        key,
        label: request.label.clone(),
        id: request.id.clone(),
        pin: request.pin.clone(),
    };
    let created = ask!(server, Request::CreateKey(request) => CreateKey);
    Ok(described(
        &public_key_of(&created.pem, server)?,
        created.uri,
    ))
}

/// Where several key pairs match, an old server deletes them all.
pub(super) fn delete_key(request: &DeleteKey, server: Target<'_>) -> Result<Deleted, Error> {
    let request = tedge1::DeleteKey {
        uri: request.uri.clone(),
        pin: request.pin.clone(),
    };
    let deleted = ask!(server, Request::DeleteKey(request) => DeleteKey);
    Ok(Deleted { deleted })
}

/// Whether the token was there before is seen from the tokens that were: the response does not say.
pub(super) fn init_token(request: &InitToken, server: Target<'_>) -> Result<TokenReady, Error> {
    let before = ask!(server, Request::GetTokensUris => GetTokensUris);
    let request = tedge1::InitToken {
        label: request.label.clone(),
        so_pin: request.so_pin.clone(),
        pin: request.pin.clone(),
        uri: request.uri.clone(),
    };
    let uri = ask!(server, Request::InitToken(request) => InitToken);
    let created = !before.contains(&uri);
    Ok(TokenReady { uri, created })
}

pub(super) fn change_pin(request: &ChangePin, server: Target<'_>) -> Result<PinChanged, Error> {
    let request = tedge1::ChangePin {
        uri: request.uri.clone(),
        new_pin: request.new_pin.clone(),
        old_pin: request.old_pin.clone(),
        so_pin: request.so_pin.clone(),
        reset: request.reset,
    };
    let uri = ask!(server, Request::ChangePin(request) => ChangePin);
    Ok(PinChanged { uri, stale: None })
}

fn described(public: &spki::PublicKey, uri: String) -> PublicKey {
    let (key_type, bits) = type_and_bits(public.kind());
    PublicKey {
        uri,
        key_type,
        bits,
        spki: public.spki().to_vec().into(),
        identity: public.identity(),
    }
}

fn token(token: tedge1::Token) -> Token {
    Token {
        slot: token.slot,
        label: token.label,
        model: token.model,
        manufacturer: token.manufacturer,
        serial: token.serial,
        uri: token.uri,
        initialized: token.initialized,
        user_pin_set: false,
        login_required: false,
        pin_pad: false,
        write_protected: false,
        user_pin: PinState::Unknown,
        so_pin: PinState::Unknown,
    }
}

fn object(key: tedge1::Key, server: Target<'_>) -> Result<Object, Error> {
    let id = from_hex(&key.id)
        .ok_or_else(|| Error::not_understood(server.path, "the id of a key is not in hex"))?;
    Ok(Object {
        class: match key.class.as_str() {
            "private" => Class::Private,
            "public" => Class::Public,
            _ => Class::Unknown,
        },
        key_type: match key.key_type.as_str() {
            "RSA" => KeyType::Rsa,
            "EC" => KeyType::Ec,
            "Ed25519" => KeyType::Ed25519,
            _ => KeyType::Unknown,
        },
        bits: 0,
        label: key.label,
        id: id.into(),
        uri: key.uri,
        can_sign: None,
        extractable: None,
        always_authenticate: None,
    })
}
