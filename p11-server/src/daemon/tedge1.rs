//! A request of an old client (tedge1), translated to those of protocol 1, and its response.
//!
//! Old clients and their users' scripts decide on phrases in errors, so the phrases are kept here.

use std::time::Duration;

use p11_proto::message::{
    ChangePin, Class, CreateKey, DeleteKey, GetPublicKey, InitToken, KeySpec, KeyType, ListKeys,
    ListTokens, ObjectEntry, OpenKey, OpenedKey, PublicKeyEntry, Sign, TokenEntry,
};
use p11_proto::spki::PublicKey;
use p11_proto::tedge1::{
    self, Algorithm, ChosenScheme, CreatedKey, KeyEntry, Request, Response, SigScheme,
};
use p11_proto::{self as proto, Failure, Pin, Scheme, UriText};
use p11_uri::Uri;

use super::request::RequestContext;
use crate::engine::Timeouts;
use crate::error::Error;

/// How long the operation behind a request may take.
pub(super) fn deadline(request: &Request, timeouts: &Timeouts) -> Duration {
    match request.takes_minutes() {
        true => timeouts.long_request,
        false => timeouts.request,
    }
}

/// Answers one request.
pub(super) fn answer(context: &mut RequestContext<'_>, request: Request) -> Response {
    let finds_a_key = matches!(
        request,
        Request::ChooseScheme(_)
            | Request::Sign(_)
            | Request::SignWithSigScheme(_)
            | Request::GetPublicKeyPem(_)
    );
    translate(context, request).unwrap_or_else(|error| {
        context.fail(&error);
        match &error {
            Error::TokenNotFound(why) if finds_a_key => Response::Error(format!(
                "PKCS #11 service failed: Failed to find a signing key: {why}"
            )),
            Error::KeyHidden(why) if finds_a_key => Response::Error(format!(
                "PKCS #11 service failed: Failed to find a key: Failed to find a signing key: {why}"
            )),
            _ => failure(&error),
        }
    })
}

/// Whether it may be long. What tells of a deletion may be, too, but it must be told.
pub(super) fn is_listing(response: &Response) -> bool {
    matches!(
        response,
        Response::GetTokensUris(_) | Response::ListTokens(_) | Response::ListKeys(_)
    )
}

/// The answer to bytes that are no request.
pub(super) fn not_understood(error: &proto::Error) -> Response {
    Response::Error(format!("Failed to parse the received frame: {error}"))
}

/// The answer to a request that is refused before it is read.
pub(super) fn refused(failure: &Failure) -> Response {
    Response::Error(format!("PKCS #11 service failed: {failure}"))
}

/// The answer to a request that failed.
pub(super) fn failure(error: &Error) -> Response {
    let text = error.message();
    let phrase = match error {
        Error::KeyNotFound { .. } | Error::KeyHidden(_) => "Failed to find a key",
        Error::TokenNotFound(_) => "Didn't find a slot to use",
        Error::AlreadyExists(_) => "Object with this id already exists on the token",
        _ => "",
    };
    Response::Error(match phrase.is_empty() || text.contains(phrase) {
        true => format!("PKCS #11 service failed: {text}"),
        false => format!("PKCS #11 service failed: {phrase}: {text}"),
    })
}

/// Calls the service with a request of protocol 1, and takes its answer apart.
macro_rules! call {
    ($context:expr, $name:ident($request:expr) -> $answer:ident) => {
        match $context.call(&proto::Request::$name($request))? {
            proto::Response::$answer(answer) => answer,
            other => return Err(unexpected(&other)),
        }
    };
}

fn translate(context: &mut RequestContext<'_>, request: Request) -> Result<Response, Error> {
    Ok(match request {
        Request::Ping => Response::Pong,
        Request::ChooseScheme(choose) => {
            let open = OpenKey::new(any(choose.uri)).pin(choose.pin);
            let key = call!(context, OpenKey(open) -> Key);
            Response::ChooseScheme(choose_scheme(&key, &choose.offered)?)
        }
        Request::Sign(request) => sign(
            context,
            any(request.uri),
            request.pin,
            None,
            request.to_sign.0.into_vec(),
        )?,
        Request::SignWithSigScheme(request) => {
            let scheme = request.sigscheme.map(Scheme::from);
            sign(
                context,
                any(request.uri),
                request.pin,
                scheme,
                request.to_sign.0.into_vec(),
            )?
        }
        Request::GetPublicKeyPem(uri) => {
            let get = GetPublicKey::new(any(uri));
            let public = call!(context, GetPublicKey(get) -> PublicKey);
            Response::GetPublicKeyPem(pem(&public)?)
        }
        Request::CreateKey(create) => create_key(context, create)?,
        Request::GetTokensUris => {
            let list = call!(context, ListTokens(ListTokens::default()) -> Tokens);
            let initialized = list.tokens.into_iter().filter(|token| token.initialized);
            Response::GetTokensUris(initialized.map(|token| token.uri).collect())
        }
        Request::ListTokens => {
            let list = call!(context, ListTokens(ListTokens::default()) -> Tokens);
            Response::ListTokens(list.tokens.into_iter().map(token).collect())
        }
        Request::InitToken(init) => {
            let init = InitToken::new(init.label)
                .uri(init.uri)
                .so_pin(init.so_pin)
                .pin(init.pin);
            Response::InitToken(call!(context, InitToken(init) -> TokenReady).uri)
        }
        Request::ChangePin(change) => {
            let change = ChangePin::new(change.new_pin)
                .uri(change.uri)
                .old_pin(change.old_pin)
                .so_pin(change.so_pin)
                .reset(change.reset);
            Response::ChangePin(call!(context, ChangePin(change) -> PinChanged).uri)
        }
        Request::DeleteKey(delete) => delete_key(context, delete)?,
        Request::ListKeys(list) => list_keys(context, list)?,
    })
}

/// Old clients name no key, only a URI, and perhaps no scheme: the key is opened first.
fn sign(
    context: &mut RequestContext<'_>,
    uri: UriText,
    pin: Option<Pin>,
    scheme: Option<Scheme>,
    message: Vec<u8>,
) -> Result<Response, Error> {
    let open = OpenKey::new(uri.clone()).pin(pin.clone());
    let key = call!(context, OpenKey(open) -> Key);
    let first = key.schemes.first().copied();
    let scheme = scheme.map(Scheme::number).or(first).unwrap_or_default();
    let sign = Sign::new(uri, scheme, message, key.identity).pin(pin);
    let signature = call!(context, Sign(sign) -> Signature).signature;
    Ok(Response::Sign(signature))
}

fn create_key(
    context: &mut RequestContext<'_>,
    create: tedge1::CreateKey,
) -> Result<Response, Error> {
    let spec = match create.key {
        tedge1::KeySpec::Rsa { bits } => KeySpec::new(KeyType::Rsa, bits.into()),
        tedge1::KeySpec::Ec { curve } => KeySpec::new(KeyType::Ec, curve.into()),
    };
    let create = CreateKey::new(create.uri, spec, create.label)
        .id(create.id)
        .pin(create.pin);
    let public = call!(context, CreateKey(create) -> PublicKey);
    Ok(Response::CreateKey(CreatedKey {
        pem: pem(&public)?,
        uri: without_type(&public.uri)?,
    }))
}

/// Released clients expect all keys that match to go.
fn delete_key(
    context: &mut RequestContext<'_>,
    delete: tedge1::DeleteKey,
) -> Result<Response, Error> {
    let delete = DeleteKey::new(delete.uri).pin(delete.pin).all(true);
    let mut deleted = Vec::new();
    for uri in call!(context, DeleteKey(delete) -> Deleted).deleted {
        // Without its type the URI is that of both halves of the pair.
        let uri = without_type(&uri)?;
        if !deleted.contains(&uri) {
            deleted.push(uri);
        }
    }
    Ok(Response::DeleteKey(deleted))
}

fn list_keys(context: &mut RequestContext<'_>, list: tedge1::ListKeys) -> Result<Response, Error> {
    let list = ListKeys::new(any(list.uri)).pin(list.pin);
    let objects = call!(context, ListKeys(list) -> Objects).objects;
    let keys = objects
        .into_iter()
        .filter(|object| object.class != Class::Certificate);
    Ok(Response::ListKeys(keys.map(key).collect::<Result<_, _>>()?))
}

fn unexpected(response: &proto::Response) -> Error {
    let name = proto::message::Message::name(response);
    Error::Internal(format!("the answer {name} does not fit the request"))
}

/// The URI of a request that may leave it away.
fn any(uri: Option<UriText>) -> UriText {
    uri.unwrap_or_else(|| "pkcs11:".into())
}

/// The scheme is one that the client can ask for afterwards: by its number, or by naming none.
fn choose_scheme(key: &OpenedKey, offered: &[u16]) -> Result<ChosenScheme, Error> {
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
            _ => return Err(Error::Internal("a key of an unknown type".into())),
        },
    })
}

fn pem(public: &PublicKeyEntry) -> Result<String, Error> {
    let public = PublicKey::from_spki(&public.spki);
    let public = public.map_err(|error| Error::Internal(error.to_string()))?;
    Ok(tedge1::legacy_pem(&public))
}

fn without_type(uri: &str) -> Result<String, Error> {
    Ok(Uri::parse(uri)?.without_type().to_string())
}

fn token(token: TokenEntry) -> tedge1::TokenEntry {
    tedge1::TokenEntry {
        slot: token.slot,
        label: token.label,
        model: token.model,
        manufacturer: token.manufacturer,
        serial: token.serial,
        initialized: token.initialized,
        uri: token.uri,
    }
}

fn key(object: ObjectEntry) -> Result<KeyEntry, Error> {
    Ok(KeyEntry {
        class: object.class.to_string(),
        key_type: object.key_type.to_string(),
        label: object.label,
        id: object.id.iter().map(|byte| format!("{byte:02x}")).collect(),
        uri: without_type(&object.uri)?,
    })
}
