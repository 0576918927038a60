//! One connection: frames enter, requests go to the service, answers leave.

use std::io;
use std::time::{Duration, Instant};

use p11_proto::{Error, ErrorCode, Failure, Request, Response, frame};
use tracing::debug;

use super::patience::{Line, Patience};
use super::serve::Server;
use super::watch::Connection;
use crate::audit::Record;
use crate::dispatch::{deadline, dispatch};
use crate::token::DEADLINE;

/// Serves a connection until the client leaves, errs or falls silent.
///
/// # Errors
/// What the system says; a client that leaves is no error.
pub fn serve(server: &Server, connection: &Connection, patience: Patience) -> io::Result<()> {
    let mut line = Line::new(&connection.stream, patience)?;
    if line.peek()?.is_none() {
        return Ok(());
    }
    connection.set_overdue_answer(overdue());
    match serve_protocol1(server, connection, &mut line) {
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
    server: &Server,
    connection: &Connection,
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
        let request = match frame::decode::<Request>(&body) {
            Err(Error::UnknownMessage(name)) => Err(name),
            other => Ok(other?),
        };
        drop(body);
        if !connection.begin(request.as_ref().map_or(DEADLINE, deadline)) {
            return Ok(());
        }
        let began = Instant::now();
        let peer = &connection.peer;
        let (response, record) = match request {
            Ok(request) => dispatch(server.service(), &server.policy(), peer, &request),
            Err(name) => unsupported(&name),
        };
        let took = began.elapsed();
        // The client waits for its answer, not for its line in the log. An operation that ended
        // after the watch had answered has a line too.
        let in_time = connection.finish();
        let sent = in_time.then(|| line.send(&encode(&response)));
        record.write(peer, took);
        match sent {
            Some(sent) => sent?,
            None => return Ok(()),
        }
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

fn unsupported(name: &str) -> (Response, Record) {
    let failure = Failure::new(
        ErrorCode::Unsupported,
        format!(
            "{:?} is not known to this server, tedge-p11-server {}; update it",
            name.chars().take(64).collect::<String>(),
            env!("CARGO_PKG_VERSION")
        ),
    );
    let mut record = Record::new("unknown");
    record.fail(&failure);
    (Response::Error(failure), record)
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
