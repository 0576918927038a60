//! A connection that speaks tedge1: one request, one reply, and what the reply tells of the server.

use std::io::{self, Write};

use p11_proto::tedge1::{Request, Response, advertised_protocol};
use p11_proto::{Error as ProtoError, UriText, frame, message};

use super::failure::failure;
use crate::config::Protocol;
use crate::error::Error;
use crate::socket::{Socket, Target};

/// Finds out what a server speaks, by a Ping in tedge1, which every server understands.
pub(crate) fn probe(server: Target<'_>) -> Result<Protocol, Error> {
    let ping = Request::Ping.encode().map_err(Error::Request)?;
    let reply = exchange(server.connect()?, &ping).map_err(|e| server.error(e))?;
    if advertised_protocol(&reply).is_some() || protocol1_response(&reply).is_some() {
        return Ok(Protocol::V1);
    }
    match Response::decode(&reply) {
        Ok(Response::Pong) => Ok(Protocol::Tedge1),
        // No old server answers so. One of ours does when it has too many connections, and in
        // protocol 1 it says that with a code.
        Ok(Response::Error(_)) => Ok(Protocol::V1),
        Ok(other) => Err(Error::not_understood(
            server.path,
            format_args!("its answer was {:?}", other.name()),
        )),
        Err(e) => Err(Error::not_understood(server.path, e)),
    }
}

/// Sends a request and returns the response, which is never [`Response::Error`].
pub(super) fn send(server: Target<'_>, request: &Request) -> Result<Response, Error> {
    let lost = |e| server.error(e).if_sent(request.changes_token());
    let encoded = request.encode().map_err(Error::Request)?;
    let reply = exchange(server.connect()?, &encoded).map_err(lost)?;
    if let Some(message::Response::Error(failure)) = protocol1_response(&reply) {
        return Err(failure.into());
    }
    match Response::decode(&reply).map_err(lost)? {
        Response::Error(text) => Err(failure(text).into()),
        response => Ok(response),
    }
}

/// Sends a request and returns the value of the response that belongs to it.
macro_rules! ask {
    ($server:expr, $request:expr => $response:ident) => {
        match $crate::tedge1::exchange::send($server, &$request)? {
            p11_proto::tedge1::Response::$response(value) => value,
            other => return Err($crate::error::Error::unexpected(other.name())),
        }
    };
}
pub(super) use ask;

/// The URI of a request; `pkcs11:` matches every key, for which tedge1 leaves the URI out.
pub(super) fn optional(uri: &UriText) -> Option<UriText> {
    (**uri != *"pkcs11:").then(|| uri.clone())
}

/// The error for what tedge1 has no message for.
pub(super) fn too_old(server: Target<'_>, what: impl Into<String>) -> Error {
    Error::TooOld {
        path: server.path.to_owned(),
        what: what.into(),
    }
}

/// A response in protocol 1: from a server of both protocols that has too many connections and so
/// does not read the request, or from one that does not speak tedge1.
fn protocol1_response(reply: &[u8]) -> Option<message::Response> {
    let body = frame::read(&mut &*reply).ok()??;
    frame::decode(&body).ok()
}

fn exchange(mut socket: Socket, request: &[u8]) -> Result<frame::Body, ProtoError> {
    let sent = socket
        .write_all(request)
        .and_then(|()| socket.finish_sending());
    match sent {
        // A server with too many connections replies and closes without reading.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e.into()),
        _ => {}
    }
    let reply = frame::read_to_end(&mut socket)?;
    match reply.is_empty() {
        true => Err(ProtoError::Truncated),
        false => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::connected;

    #[test]
    fn a_reply_that_came_before_the_request_is_read() {
        let (socket, mut full_server) = connected();
        full_server.write_all(b"busy").unwrap();
        drop(full_server);
        assert_eq!(**exchange(socket, b"request").unwrap(), *b"busy");
    }
}
