//! Listing and changing keys and tokens through an old server. What it does not tell is false, 0,
//! unknown or absent.

use p11_proto::message::{
    ChangePin, Class, CreateKey, DeleteKey, Deleted, GetPublicKey, InitToken, KeyType, ListKeys,
    ObjectEntry, Objects, PinChanged, PublicKeyEntry, TokenEntry, TokenReady, Tokens,
};
use p11_proto::tedge1::{self, KeySpec, Request};

use super::exchange::{ask, optional, too_old};
use super::key::{decode_pem, public_key};
use crate::error::Error;
use crate::socket::Target;
use crate::uri::{hex_digit, without_query};

pub(super) fn list_tokens(server: Target<'_>) -> Result<Tokens, Error> {
    let tokens = ask!(server, Request::ListTokens => ListTokens);
    Ok(Tokens::new(tokens.into_iter().map(token).collect()))
}

pub(super) fn list_keys(request: &ListKeys, server: Target<'_>) -> Result<Objects, Error> {
    let request = tedge1::ListKeys {
        uri: optional(&request.uri),
        pin: request.pin.clone(),
    };
    let keys = ask!(server, Request::ListKeys(request) => ListKeys);
    let objects = keys.into_iter().map(|key| object(key, server));
    Ok(Objects::new(objects.collect::<Result<_, _>>()?))
}

/// Without the PIN, for which this request of tedge1 has no field.
pub(super) fn get_public_key(
    request: &GetPublicKey,
    server: Target<'_>,
) -> Result<PublicKeyEntry, Error> {
    let public = public_key(&request.uri, server)?;
    Ok(PublicKeyEntry::new(without_query(&request.uri), &public))
}

pub(super) fn create_key(request: &CreateKey, server: Target<'_>) -> Result<PublicKeyEntry, Error> {
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
    let public = decode_pem(&created.pem, server)?;
    Ok(PublicKeyEntry::new(created.uri, &public))
}

/// If several key pairs match, an old server deletes them all.
pub(super) fn delete_key(request: &DeleteKey, server: Target<'_>) -> Result<Deleted, Error> {
    let request = tedge1::DeleteKey {
        uri: request.uri.clone(),
        pin: request.pin.clone(),
    };
    let deleted = ask!(server, Request::DeleteKey(request) => DeleteKey);
    Ok(Deleted::new(deleted))
}

/// The response does not tell whether the token was initialised before; the list of tokens does.
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
    Ok(TokenReady::new(uri, created))
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
    Ok(PinChanged::new(uri))
}

fn token(token: tedge1::TokenEntry) -> TokenEntry {
    TokenEntry::new(token.slot, token.uri)
        .label(token.label)
        .model(token.model)
        .manufacturer(token.manufacturer)
        .serial(token.serial)
        .initialized(token.initialized)
}

fn object(key: tedge1::KeyEntry, server: Target<'_>) -> Result<ObjectEntry, Error> {
    let id = from_hex(&key.id)
        .ok_or_else(|| Error::not_understood(server.path, "the id of a key is not in hex"))?;
    Ok(ObjectEntry::new(
        match key.class.as_str() {
            "private" => Class::Private,
            "public" => Class::Public,
            _ => Class::Unknown,
        },
        match key.key_type.as_str() {
            "RSA" => KeyType::Rsa,
            "EC" => KeyType::Ec,
            "Ed25519" => KeyType::Ed25519,
            _ => KeyType::Unknown,
        },
        key.label,
        id,
        key.uri,
    ))
}

/// The bytes that pairs of hexadecimal digits stand for.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().map(hex_digit).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks();
    let bytes = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    rest.is_empty().then_some(bytes)
}
