//! One connection: frames enter, requests go to the service, answers leave.

use std::io;
use std::time::Duration;

use p11_proto::{Error, ErrorCode, Failure, Request, Response, frame};
use tracing::debug;

use super::patience::{Line, Patience};
use super::watch::Connection;
use crate::dispatch::dispatch;
use crate::service::Service;
use crate::token::DEADLINE;

/// Serves a connection until the client leaves, errs or falls silent.
///
/// # Errors
/// What the system says; a client that leaves is no error.
pub fn serve(connection: &Connection, service: &dyn Service, patience: Patience) -> io::Result<()> {
    let mut line = Line::new(&connection.stream, patience)?;
    if line.peek()?.is_none() {
        return Ok(());
    }
    connection.set_overdue_answer(overdue());
    match serve_protocol1(connection, service, &mut line) {
        Ok(()) => Ok(()),
        Err(error) => {
            debug!(peer = %connection.peer, "closing a connection: {error}");
            match refusal(&error, &line) {
                Some(failure) => line.send(&encode(&Response::Error(failure))),
                None => Ok(()),
            }
        }
    }
}

/// Tells a client that there is no place for it.
pub fn refuse(connection: &Connection, why: &str) {
    let answer = encode(&Response::Error(Failure::new(ErrorCode::Busy, why)));
    connection.send_now(&answer);
}

/// Ends with `Ok` when the client is done, with an error when the connection cannot go on.
fn serve_protocol1(
    connection: &Connection,
    service: &dyn Service,
    line: &mut Line<'_>,
) -> Result<(), Error> {
    let mut preamble = [0; 4];
    io::Read::read_exact(line, &mut preamble)?;
    frame::check_preamble(preamble)?;
    loop {
        line.next_request();
        let Some(body) = frame::read(line)? else {
            return Ok(());
        };
        if !connection.begin(DEADLINE) {
            return Ok(());
        }
        let response = match frame::decode::<Request>(&body) {
            Ok(request) => dispatch(service, &request),
            Err(Error::UnknownMessage(name)) => Response::Error(unsupported(&name)),
            Err(error) => return Err(error),
        };
        drop(body);
        let answer = encode(&response);
        if !connection.finish() {
            return Ok(());
        }
        line.send(&answer)?;
        connection.answered();
    }
}

/// What the client is told before the connection is closed, where it can be told anything.
fn refusal(error: &Error, line: &Line<'_>) -> Option<Failure> {
    match error {
        Error::Io(error) if is_timeout(error) && line.has_begun() => Some(Failure::new(
            ErrorCode::BadFrame,
            "the request was not complete in time; send it without pauses",
        )),
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
    Failure::new(
        ErrorCode::Unsupported,
        format!(
            "{:?} is not known to this server, tedge-p11-server {}; update it",
            name.chars().take(64).collect::<String>(),
            env!("CARGO_PKG_VERSION")
        ),
    )
}

fn overdue() -> Vec<u8> {
    let failure = Failure::new(
        ErrorCode::Timeout,
        "the token did not answer in time; the operation may still complete",
    );
    encode(&Response::Error(failure)).to_vec()
}

/// A response as a frame. One that is too long for a frame becomes an error that is not.
fn encode(response: &Response) -> frame::Body {
    let encoded = frame::encode(response).or_else(|error| {
        frame::encode(&Response::Error(Failure::new(
            ErrorCode::Internal,
            error.to_string(),
        )))
    });
    encoded.unwrap_or_default()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// How patient the server is with its clients.
pub const PATIENCE: Patience = Patience {
    idle: Duration::from_secs(5 * 60),
    request: Duration::from_secs(5),
    reply: Duration::from_secs(5),
};
