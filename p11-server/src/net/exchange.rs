//! One connection: bytes enter, requests go to the service, answers leave.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use p11_proto::frame::Body;
use p11_proto::{Error, ErrorCode, Failure, Request, Response, frame, tedge1};
use tracing::debug;

use super::patience::{Line, Patience};
use super::serve::Server;
use super::watch::Connection;
use crate::audit::Record;
use crate::caller::Caller;
use crate::error::Error as ServiceError;
use crate::token::DEADLINE;
use crate::{dispatch, tedge1 as old};

/// Serves a connection until the client leaves, errs or falls silent. Its first byte tells which
/// protocol it speaks.
///
/// # Errors
/// What the system says; a client that leaves is no error.
pub fn serve(server: &Server, connection: &Connection, patience: Patience) -> io::Result<()> {
    let mut line = Line::new(&connection.stream, patience)?;
    match line.peek()? {
        None => Ok(()),
        Some(tedge1::VERSION) => serve_tedge1(server, connection, &mut line),
        Some(_) => match serve_protocol1(server, connection, &mut line) {
            Err(error) => {
                debug!(peer = %connection.peer, "closing a connection: {error}");
                let Some(failure) = refusal(&error, &line) else {
                    return Ok(());
                };
                line.send(&encode(&Response::Error(failure)))?;
                line.hang_up()
            }
            Ok(()) => Ok(()),
        },
    }
}

/// Tells a client that there is no place for it, in the protocol that it speaks if it has said so.
pub fn refuse(connection: &Connection) {
    let why = "all connections of the server are at work; try again";
    let first = connection.first_byte();
    connection.hang_up(&match first {
        Some(tedge1::VERSION) => encode_old(&old::failure(&ServiceError::Busy(why.into()))),
        _ => encode(&Response::Error(Failure::new(ErrorCode::Busy, why))),
    });
}

/// Many requests, one after the other. Ends with `Ok` when the client is done, with an error when the
/// connection cannot go on.
fn serve_protocol1(
    server: &Server,
    connection: &Connection,
    line: &mut Line<'_>,
) -> Result<(), Error> {
    let overdue = "the token did not answer in time; the operation may still complete";
    let overdue = Response::Error(Failure::new(ErrorCode::Timeout, overdue));
    connection.set_overdue_answer(encode(&overdue));
    let mut preamble = [0; 4];
    line.read_exact(&mut preamble)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::NotProtocol1,
            _ => Error::Io(error),
        })?;
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
        let deadline = request.as_ref().map_or(DEADLINE, dispatch::deadline);
        let goes_on = perform(
            server,
            connection,
            line,
            deadline,
            |caller| match &request {
                Ok(request) => {
                    caller.record = Record::of(request);
                    encode(&dispatch::dispatch(caller, request))
                }
                Err(name) => {
                    caller.record = Record::new("unknown");
                    caller.record.failure = Some((ErrorCode::Unsupported, None));
                    encode(&Response::Error(unsupported(name)))
                }
            },
        )?;
        if !goes_on {
            return Ok(());
        }
    }
}

/// One request, which ends when the client shuts down its writing half.
fn serve_tedge1(server: &Server, connection: &Connection, line: &mut Line<'_>) -> io::Result<()> {
    let overdue = "the token did not answer in time";
    connection.set_overdue_answer(encode_old(&old::failure(&ServiceError::Busy(
        overdue.into(),
    ))));
    let request = frame::read_to_end(line).and_then(|bytes| tedge1::Request::decode(&bytes));
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            debug!(peer = %connection.peer, "closing a connection: {error}");
            line.send(&encode_old(&old::not_understood(&error)))?;
            return line.hang_up();
        }
    };
    perform(
        server,
        connection,
        line,
        old::deadline(&request),
        |caller| {
            caller.record = Record::new(request.name());
            match old::dispatch(caller, request) {
                tedge1::Response::Pong => tedge1::pong_with_advertisement().to_vec().into(),
                response => encode_old(&response),
            }
        },
    )
    .map(drop)
}

/// Does what a request asks for, sends the answer and writes the line of the audit. False if there
/// is to be no further request: the watch has answered, the connection was given up, the server stops.
fn perform(
    server: &Server,
    connection: &Connection,
    line: &mut Line<'_>,
    deadline: Duration,
    job: impl FnOnce(&mut Caller<'_>) -> Body,
) -> io::Result<bool> {
    if !connection.begin(deadline) {
        return Ok(false);
    }
    let began = Instant::now();
    let policy = server.policy();
    let mut caller = Caller {
        service: server.service(),
        policy: &policy,
        peer: &connection.peer,
        record: Record::default(),
    };
    let answer = job(&mut caller);
    let took = began.elapsed();
    // The client waits for its answer, not for its line in the log. An operation that ended after
    // the watch had answered has a line too.
    let sent = connection.finish().then(|| line.send(&answer));
    server.audit().note(caller.record, &connection.peer, took);
    match sent {
        Some(sent) => sent?,
        None => return Ok(false),
    }
    Ok(connection.answered())
}

/// What the client is told before the connection is closed, where it can be told anything.
fn refusal(error: &Error, line: &Line<'_>) -> Option<Failure> {
    match error {
        Error::Io(error) if error.kind() == io::ErrorKind::TimedOut && line.has_begun() => {
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
fn encode(response: &Response) -> Body {
    let encoded = frame::encode(response).or_else(|error| {
        let failure = Failure::new(ErrorCode::Internal, error.to_string());
        frame::encode(&Response::Error(failure))
    });
    encoded.unwrap_or_default()
}

fn encode_old(response: &tedge1::Response) -> Body {
    let encoded = response
        .encode()
        .or_else(|error| old::failure(&ServiceError::Internal(error.to_string())).encode());
    encoded.unwrap_or_default()
}
