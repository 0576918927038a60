//! A request of an old client enters, the response that it understands leaves.
//!
//! Old clients and their users' scripts decide on phrases in errors, so the phrases are kept here.

use std::time::Duration;

use p11_proto::message::{
    self, ChangePin, Class, CreateKey, DeleteKey, GetPublicKey, InitToken, KeySpec, KeyType,
    ListKeys, OpenKey,
};
use p11_proto::spki::PublicKey;
use p11_proto::tedge1::{
    self, Algorithm, ChosenScheme, CreatedKey, Request, Response, SigScheme, Token,
};
use p11_proto::{Pin, Scheme, UriText};
use p11_uri::Uri;

use crate::caller::Caller;
use crate::error::Error;
use crate::service::SignRequest;
use crate::token::{DEADLINE, LONG_DEADLINE};

/// How long the operation behind a request may take.
pub fn deadline(request: &Request) -> Duration {
    match request {
        Request::CreateKey(_) | Request::InitToken(_) => LONG_DEADLINE,
        _ => DEADLINE,
    }
}

/// Answers one request.
pub fn dispatch(caller: &mut Caller<'_>, request: Request) -> Response {
    answer(caller, request).unwrap_or_else(|error| {
        caller.fail(&error);
        failure(&error)
    })
}

/// The answer to bytes that are no request.
pub fn not_understood(error: &p11_proto::Error) -> Response {
    Response::Error(format!("Failed to parse the received frame: {error}"))
}

/// The answer to a request that failed.
pub fn failure(error: &Error) -> Response {
    let text = error.to_string();
    let phrase = match error {
        Error::KeyNotFound(_) => "Failed to find a key",
        Error::TokenNotFound(_) => "Didn't find a slot to use",
        _ => "",
    };
    Response::Error(match phrase.is_empty() || text.contains(phrase) {
        true => format!("PKCS #11 service failed: {text}"),
        false => format!("PKCS #11 service failed: {phrase}: {text}"),
    })
}

fn answer(caller: &mut Caller<'_>, request: Request) -> Result<Response, Error> {
    Ok(match request {
        Request::Ping => Response::Pong,
        Request::ChooseScheme(choose) => {
            let key = caller.open_key(&OpenKey {
                uri: any(choose.uri),
                pin: choose.pin,
                spki: None,
            })?;
            Response::ChooseScheme(choose_scheme(&key, &choose.offered)?)
        }
        Request::Sign(sign) => sign_with(
            caller,
            &any(sign.uri),
            sign.pin.as_ref(),
            None,
            &sign.to_sign.0,
        )?,
        Request::SignWithSigScheme(sign) => {
            let scheme = sign.sigscheme.map(Scheme::from);
            sign_with(
                caller,
                &any(sign.uri),
                sign.pin.as_ref(),
                scheme,
                &sign.to_sign.0,
            )?
        }
        Request::GetPublicKeyPem(uri) => {
            let public = caller.public_key(&GetPublicKey {
                uri: any(uri),
                pin: None,
            })?;
            Response::GetPublicKeyPem(pem(&public.spki)?)
        }
        Request::CreateKey(create) => {
            let (key_type, bits) = match create.key {
                tedge1::KeySpec::Rsa { bits } => (KeyType::Rsa, bits.into()),
                tedge1::KeySpec::Ec { curve } => (KeyType::Ec, curve.into()),
            };
            let public = caller.create_key(&CreateKey {
                uri: create.uri,
                pin: create.pin,
                key: KeySpec { key_type, bits },
                label: create.label,
                id: create.id,
            })?;
            Response::CreateKey(CreatedKey {
                pem: pem(&public.spki)?,
                uri: without_type(&public.uri)?,
            })
        }
        Request::GetTokensUris => {
            let tokens = caller.list_tokens()?.into_iter();
            let initialized = tokens.filter(|token| token.initialized);
            Response::GetTokensUris(initialized.map(|token| token.uri).collect())
        }
        Request::ListTokens => {
            let tokens = caller.list_tokens()?;
            Response::ListTokens(tokens.into_iter().map(token).collect())
        }
        Request::InitToken(init) => {
            let ready = caller.init_token(&InitToken {
                uri: init.uri,
                label: init.label,
                so_pin: init.so_pin,
                pin: init.pin,
            })?;
            Response::InitToken(ready.uri)
        }
        Request::ChangePin(change) => {
            let changed = caller.change_pin(&ChangePin {
                uri: change.uri,
                new_pin: change.new_pin,
                old_pin: change.old_pin,
                so_pin: change.so_pin,
                reset: change.reset,
            })?;
            Response::ChangePin(changed.uri)
        }
        Request::DeleteKey(delete) => {
            let delete = DeleteKey {
                uri: delete.uri,
                pin: delete.pin,
            };
            // Released clients expect all keys that match to go.
            let mut deleted = Vec::new();
            for uri in caller.delete_key(&delete, true)? {
                // Without its type the URI is that of both halves of the pair.
                let uri = without_type(&uri)?;
                if !deleted.contains(&uri) {
                    deleted.push(uri);
                }
            }
            Response::DeleteKey(deleted)
        }
        Request::ListKeys(list) => {
            let objects = caller.list_keys(&ListKeys {
                uri: any(list.uri),
                pin: list.pin,
            })?;
            let keys = objects
                .into_iter()
                .filter(|object| object.class != Class::Certificate);
            Response::ListKeys(keys.map(key).collect::<Result<_, _>>()?)
        }
    })
}

/// The URI of a request that may leave it away.
fn any(uri: Option<UriText>) -> UriText {
    uri.unwrap_or_else(|| "pkcs11:".into())
}

/// The scheme is one that the client can ask for afterwards: by its number, or by naming none.
fn choose_scheme(key: &message::Key, offered: &[u16]) -> Result<ChosenScheme, Error> {
    let first = key.schemes.first();
    let can_ask_for = |number: &&u16| {
        Some(*number) == first
            || Scheme::from_number(**number)
                .and_then(SigScheme::from_scheme)
                .is_some()
    };
    let mut usable = key.schemes.iter().filter(can_ask_for);
    Ok(ChosenScheme {
        scheme: usable.find(|number| offered.contains(number)).copied(),
        algorithm: match key.key_type {
            KeyType::Rsa => Algorithm::Rsa,
            KeyType::Ec => Algorithm::Ecdsa,
            KeyType::Ed25519 => Algorithm::Ed25519,
            KeyType::Unknown => return Err(Error::Internal("a key of an unknown type".into())),
        },
    })
}

fn sign_with(
    caller: &mut Caller<'_>,
    uri: &str,
    pin: Option<&Pin>,
    scheme: Option<Scheme>,
    message: &[u8],
) -> Result<Response, Error> {
    let signature = caller.sign(&SignRequest {
        uri,
        pin,
        scheme: scheme.map(Scheme::number),
        message,
        identity: None,
    })?;
    Ok(Response::Sign(signature.into()))
}

fn pem(spki: &[u8]) -> Result<String, Error> {
    let public = PublicKey::from_spki(spki);
    let public = public.map_err(|error| Error::Internal(error.to_string()))?;
    Ok(tedge1::odd_pem(&public))
}

fn without_type(uri: &str) -> Result<String, Error> {
    Ok(Uri::parse(uri)?.without_type().to_string())
}

fn token(token: message::Token) -> Token {
    Token {
        slot: token.slot,
        label: token.label,
        model: token.model,
        manufacturer: token.manufacturer,
        serial: token.serial,
        initialized: token.initialized,
        uri: token.uri,
    }
}

fn key(object: message::Object) -> Result<tedge1::Key, Error> {
    Ok(tedge1::Key {
        class: object.class.to_string(),
        key_type: object.key_type.to_string(),
        label: object.label,
        id: object.id.iter().map(|byte| format!("{byte:02x}")).collect(),
        uri: without_type(&object.uri)?,
    })
}
