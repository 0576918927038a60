//! Requests and answers as bytes, and what is said of bytes that are no request.

use std::io;

use p11_proto::frame::Body;
use p11_proto::{Error, ErrorCode, Failure, Request, Response, frame, tedge1};

use super::body::Unreceived;
use super::timeouts::DeadlineStream;
use crate::daemon::tedge1 as old;
use crate::error::Error as ServiceError;

/// A request, or why it is refused and under which name, on a connection that goes on. Its bytes are kept no longer.
pub(super) fn decode(body: Body) -> Result<Result<Request, (&'static str, Failure)>, Error> {
    Ok(match frame::decode::<Request>(&body) {
        Err(Error::UnknownMessage(name)) => Err(("unknown", unsupported(&name))),
        Err(error @ Error::Field { message, .. }) => {
            let failure = Failure::new(ErrorCode::BadRequest, error.to_string());
            Err((message, failure))
        }
        other => Ok(other?),
    })
}

/// What the client is told before the connection is closed, where it can be told anything.
pub(super) fn refusal(error: &Unreceived, stream: &DeadlineStream<'_>) -> Option<Failure> {
    let error = match error {
        Unreceived::Unread(error) => error,
        Unreceived::Refused(failure) => return Some(failure.clone()),
    };
    match error {
        Error::Io(error) if error.kind() == io::ErrorKind::TimedOut && stream.has_begun() => {
            Some(Failure::new(
                ErrorCode::BadFrame,
                "the request was not complete in time; send it without pauses",
            ))
        }
        Error::Io(_) | Error::Truncated => None,
        Error::Version(version) => Some(Failure::new(
            ErrorCode::UnsupportedVersion,
            format!(
                "version {version} of the protocol is not spoken here, the highest is {}",
                frame::VERSION
            ),
        )),
        other => Some(Failure::new(ErrorCode::BadFrame, other.to_string())),
    }
}

fn unsupported(name: &str) -> Failure {
    let name: String = name.chars().take(64).collect();
    Failure::new(
        ErrorCode::Unsupported,
        format!(
            "{name:?} is not known to this server, tedge-p11-server {}; update it",
            env!("CARGO_PKG_VERSION")
        ),
    )
}

/// A response as a frame. One that is too long for a frame becomes an error that is not.
pub(super) fn encode(response: &Response) -> Body {
    let encoded = frame::encode(response).or_else(|error| {
        let failure = Failure::new(ErrorCode::Internal, error.to_string());
        frame::encode(&Response::Error(failure))
    });
    encoded.unwrap_or_default()
}

pub(super) fn encode_old(response: &tedge1::Response) -> Body {
    let encoded = response
        .encode()
        .or_else(|error| old::failure(&ServiceError::Internal(error.to_string())).encode());
    encoded.unwrap_or_default()
}
