//! A request of protocol 1 enters, its response leaves: the only place that knows all of them.

use std::time::Duration;

use p11_proto::message::{
    Certificates, Deleted, Imported, Objects, Pong, Signature, Status, Tokens,
};
use p11_proto::{Failure, Request, Response, frame};

use crate::caller::Caller;
use crate::error::Error;
use crate::service::SignRequest;
use crate::token::{DEADLINE, LONG_DEADLINE};

const SERVER: &str = concat!("tedge-p11-server ", env!("CARGO_PKG_VERSION"));

/// How long the operation behind a request may take.
pub fn deadline(request: &Request) -> Duration {
    match request {
        Request::CreateKey(_) | Request::InitToken(_) => LONG_DEADLINE,
        _ => DEADLINE,
    }
}

/// Answers one request.
pub fn dispatch(caller: &mut Caller<'_>, request: &Request) -> Response {
    answer(caller, request).unwrap_or_else(|error| {
        caller.fail(&error);
        Response::Error(Failure::from(&error))
    })
}

fn answer(caller: &mut Caller<'_>, request: &Request) -> Result<Response, Error> {
    Ok(match request {
        Request::Ping(_) => Response::Pong(Pong {
            server: SERVER.into(),
            protocol: frame::VERSION,
        }),
        Request::Status(_) => {
            let trouble = caller.service.trouble();
            Response::Status(Status {
                server: SERVER.into(),
                available: trouble.is_none(),
                trouble,
            })
        }
        Request::OpenKey(open) => Response::Key((*caller.open_key(open)?).clone()),
        Request::Sign(sign) => {
            let signature = caller.sign(&SignRequest {
                uri: &sign.uri,
                pin: sign.pin.as_ref(),
                scheme: Some(sign.scheme),
                message: &sign.message,
                identity: Some(sign.identity),
            })?;
            Response::Signature(Signature {
                signature: signature.into(),
            })
        }
        Request::ListTokens(_) => {
            let mut tokens = caller.list_tokens()?;
            let truncated = frame::truncate(&mut tokens);
            Response::Tokens(Tokens { tokens, truncated })
        }
        Request::ListKeys(list) => {
            let mut objects = caller.list_keys(list)?;
            let truncated = frame::truncate(&mut objects);
            Response::Objects(Objects { objects, truncated })
        }
        Request::GetPublicKey(get) => Response::PublicKey(caller.public_key(get)?),
        Request::GetCertificates(get) => {
            let mut certificates = caller.certificates(get)?;
            let truncated = frame::truncate(&mut certificates);
            Response::Certificates(Certificates {
                certificates,
                truncated,
            })
        }
        Request::ImportCertificate(import) => Response::Imported(Imported {
            uri: caller.import_certificate(import)?,
        }),
        Request::CreateKey(create) => Response::PublicKey(caller.create_key(create)?),
        Request::DeleteKey(delete) => Response::Deleted(Deleted {
            deleted: caller.delete_key(delete, false)?,
        }),
        Request::InitToken(init) => Response::TokenReady(caller.init_token(init)?),
        Request::ChangePin(change) => Response::PinChanged(caller.change_pin(change)?),
    })
}
