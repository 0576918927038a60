//! A request enters, its response leaves: the only place that knows all requests.

use p11_proto::message::{Pong, Signature, Status};
use p11_proto::{Failure, Request, Response, frame};

use crate::service::{Service, SignRequest};

const SERVER: &str = concat!("tedge-p11-server ", env!("CARGO_PKG_VERSION"));

/// Answers one request of protocol 1.
pub fn dispatch(service: &dyn Service, request: &Request) -> Response {
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
        Request::OpenKey(open) => service
            .open_key(open)
            .map(|key| Response::Key((*key).clone())),
        Request::Sign(sign) => service
            .sign(&SignRequest {
                uri: &sign.uri,
                pin: sign.pin.as_ref(),
                scheme: sign.scheme,
                message: &sign.message,
                identity: Some(sign.identity),
            })
            .map(|signed| {
                Response::Signature(Signature {
                    signature: signed.signature.into(),
                })
            }),
    };
    answer.unwrap_or_else(|error| Response::Error(Failure::from(&error)))
}
