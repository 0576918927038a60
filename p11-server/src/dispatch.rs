//! A request and who sent it enter, its response and its line in the audit leave: the only place that
//! knows all requests.

use p11_proto::message::{Message, Pong, Signature, Status};
use p11_proto::{ErrorCode, Failure, Request, Response, frame};
use tracing::warn;

use crate::audit::{About, Record};
use crate::error::Error;
use crate::net::Peer;
use crate::policy::{Operation, Policy};
use crate::service::{Service, SignRequest};

const SERVER: &str = concat!("tedge-p11-server ", env!("CARGO_PKG_VERSION"));

/// Answers one request of protocol 1.
pub fn dispatch(
    service: &dyn Service,
    policy: &Policy,
    peer: &Peer,
    request: &Request,
) -> (Response, Record) {
    let mut record = Record::new(request.name());
    let grant = |operation| policy.grant(peer.uid, peer.gid, operation);
    let answer = match request {
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
            record.about = About::Uri(p11_uri::redact(&open.uri));
            grant(Operation::Sign).and_then(|grant| {
                let key = service.open_key(open, &grant)?;
                record.about = About::Key(key.clone());
                Ok(Response::Key((*key).clone()))
            })
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
            match signed {
                Ok(signed) => {
                    record.about = About::Key(signed.key);
                    Ok(Response::Signature(Signature {
                        signature: signed.signature.into(),
                    }))
                }
                Err(error) => {
                    record.about = About::Uri(p11_uri::redact(&sign.uri));
                    Err(error)
                }
            }
        }
        other => Err(Error::NotSupported(format!("{} is not served yet", other.name()))),
    };
    let response = answer.unwrap_or_else(|error: Error| {
        let failure = Failure::from(&error);
        record.fail(&failure);
        if failure.code == ErrorCode::NotAllowed {
            warn!(%peer, "{failure}");
        }
        Response::Error(failure)
    });
    (response, record)
}
