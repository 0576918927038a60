//! A request and who sent it enter, its response and its line in the audit leave: the only place that
//! knows all requests.

use std::time::Duration;

use p11_proto::message::{
    Certificates, Deleted, Imported, Message, Objects, Pong, Signature, Status, Tokens,
};
use p11_proto::{ErrorCode, Failure, Request, Response, UriText, frame};
use tracing::warn;

use crate::audit::{About, Record};
use crate::error::Error;
use crate::net::Peer;
use crate::policy::{Operation, Policy};
use crate::service::{Service, SignRequest};
use crate::token::{DEADLINE, LONG_DEADLINE};

const SERVER: &str = concat!("tedge-p11-server ", env!("CARGO_PKG_VERSION"));

/// How long the operation behind a request may take.
pub fn deadline(request: &Request) -> Duration {
    match request {
        Request::CreateKey(_) | Request::InitToken(_) => LONG_DEADLINE,
        _ => DEADLINE,
    }
}

/// Answers one request of protocol 1.
pub fn dispatch(
    service: &dyn Service,
    policy: &Policy,
    peer: &Peer,
    request: &Request,
) -> (Response, Record) {
    let mut record = Record::new(request.name());
    let answer = answer(service, policy, peer, request, &mut record);
    let response = answer.unwrap_or_else(|error| {
        let failure = Failure::from(&error);
        record.fail(&failure);
        if failure.code == ErrorCode::NotAllowed {
            warn!(%peer, "{failure}");
        }
        Response::Error(failure)
    });
    (response, record)
}

fn answer(
    service: &dyn Service,
    policy: &Policy,
    peer: &Peer,
    request: &Request,
    record: &mut Record,
) -> Result<Response, Error> {
    let grant = |operation| policy.grant(peer.uid, peer.gid, operation);
    match request {
        Request::Ping(_) => Ok(Response::Pong(Pong {
            server: SERVER.into(),
            protocol: frame::VERSION,
        })),
        Request::Status(_) => {
            let trouble = service.trouble();
            Ok(Response::Status(Status {
                server: SERVER.into(),
                available: trouble.is_none(),
                trouble,
            }))
        }
        Request::OpenKey(open) => {
            record.about(&open.uri);
            let key = service.open_key(open, &grant(Operation::Sign)?)?;
            record.about = About::Key(key.clone());
            Ok(Response::Key((*key).clone()))
        }
        Request::Sign(sign) => {
            record.scheme = Some(sign.scheme);
            let wanted = SignRequest {
                uri: &sign.uri,
                pin: sign.pin.as_ref(),
                scheme: sign.scheme,
                message: &sign.message,
                identity: Some(sign.identity),
            };
            let signed = grant(Operation::Sign).and_then(|grant| service.sign(&wanted, &grant));
            // The URI of the request is looked at only where there is no better one.
            let signed = signed.inspect_err(|_| record.about(&sign.uri))?;
            record.about = About::Key(signed.key);
            Ok(Response::Signature(Signature {
                signature: signed.signature.into(),
            }))
        }
        Request::ListTokens(_) => {
            let mut tokens = service.list_tokens(&grant(Operation::List)?)?;
            let truncated = frame::truncate(&mut tokens);
            Ok(Response::Tokens(Tokens { tokens, truncated }))
        }
        Request::ListKeys(list) => {
            record.about(&list.uri);
            let mut objects = service.list_keys(list, &grant(Operation::List)?)?;
            let truncated = frame::truncate(&mut objects);
            Ok(Response::Objects(Objects { objects, truncated }))
        }
        Request::GetPublicKey(get) => {
            record.about(&get.uri);
            let public = service.public_key(get, &grant(Operation::List)?)?;
            record.about = About::Uri(public.uri.clone());
            Ok(Response::PublicKey(public))
        }
        Request::GetCertificates(get) => {
            record.about(&get.uri);
            let mut certificates = service.certificates(get, &grant(Operation::List)?)?;
            let truncated = frame::truncate(&mut certificates);
            Ok(Response::Certificates(Certificates {
                certificates,
                truncated,
            }))
        }
        Request::ImportCertificate(import) => {
            record.about(&import.uri);
            let grant = grant(Operation::ImportCertificate)?;
            let uri = service.import_certificate(import, &grant)?;
            record.about = About::Uri(uri.clone());
            Ok(Response::Imported(Imported { uri }))
        }
        Request::CreateKey(create) => {
            record.about(&create.uri);
            let public = service.create_key(create, &grant(Operation::CreateKey)?)?;
            record.about = About::Uri(public.uri.clone());
            Ok(Response::PublicKey(public))
        }
        Request::DeleteKey(delete) => {
            record.about(&delete.uri);
            let deleted = service.delete_key(delete, false, &grant(Operation::DeleteKey)?)?;
            Ok(Response::Deleted(Deleted { deleted }))
        }
        Request::InitToken(init) => {
            record.about(init.uri.as_ref().unwrap_or(&UriText::from("pkcs11:")));
            let ready = service.init_token(init, &grant(Operation::InitToken)?)?;
            record.about = About::Uri(ready.uri.clone());
            Ok(Response::TokenReady(ready))
        }
        Request::ChangePin(change) => {
            record.about(change.uri.as_ref().unwrap_or(&UriText::from("pkcs11:")));
            let changed = service.change_pin(change, &grant(Operation::ChangePin)?)?;
            record.about = About::Uri(changed.uri.clone());
            Ok(Response::PinChanged(changed))
        }
    }
}
