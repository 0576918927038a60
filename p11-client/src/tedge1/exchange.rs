//! One request and its reply on a connection of their own, and what a first reply tells.

use std::io::{self, Read, Write};

use p11_proto::tedge1::{Request, Response, advertised_protocol};
use p11_proto::{Error as ProtoError, frame, message};

use super::failure::failure;
use crate::config::Protocol;
use crate::error::Error;
use crate::socket::{Socket, Target};

/// One byte more than a reply may have.
const LIMIT: u64 = frame::MAX_LEN as u64 + 1;

/// Finds out what a server speaks, by a request that all understand. A server that is activated by
/// its socket wakes up.
pub(crate) fn probe(server: Target<'_>) -> Result<Protocol, Error> {
    let ping = Request::Ping.encode().map_err(Error::Request)?;
    let reply = exchange(server.connect()?, &ping).map_err(|e| Error::from_exchange(e, server))?;
    if advertised_protocol(&reply).is_some() || protocol1_response(&reply).is_some() {
        return Ok(Protocol::V1);
    }
    match Response::decode(&reply) {
        Ok(Response::Pong) => Ok(Protocol::Tedge1),
        // No old server answers so, but one of ours that has no place left, and in protocol 1 it
        // says that with a code.
        Ok(Response::Error(_)) => Ok(Protocol::V1),
        Ok(other) => Err(Error::unexpected(server.path, other.name())),
        Err(e) => Err(Error::not_understood(server.path, e)),
    }
}

/// Sends a request and waits for the response, which is never [`Response::Error`].
pub(super) fn ask(server: Target<'_>, request: &Request) -> Result<Response, Error> {
    let once = matches!(
        request,
        Request::CreateKey(_)
            | Request::DeleteKey(_)
            | Request::InitToken(_)
            | Request::ChangePin(_)
    );
    let bytes = request.encode().map_err(Error::Request)?;
    let reply = exchange(server.connect()?, &bytes)
        .map_err(|e| Error::from_exchange(e, server).if_sent(once))?;
    if let Some(message::Response::Error(failure)) = protocol1_response(&reply) {
        return Err(failure.into());
    }
    match Response::decode(&reply) {
        Ok(Response::Error(text)) => Err(failure(text).into()),
        Ok(response) => Ok(response),
        Err(e) => Err(Error::from_exchange(e, server).if_sent(once)),
    }
}

/// A response in protocol 1: a server of both protocols that has no place left says so before it
/// reads a request, and one that no longer speaks tedge1 knows no other language.
fn protocol1_response(reply: &[u8]) -> Option<message::Response> {
    let body = frame::read(&mut &*reply).ok()??;
    frame::decode(&body).ok()
}

fn exchange(mut socket: Socket, request: &[u8]) -> Result<Vec<u8>, ProtoError> {
    let sent = socket
        .write_all(request)
        .and_then(|()| socket.finish_sending());
    let mut reply = Vec::new();
    let read = match sent {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e.into()),
        _ => socket.take(LIMIT).read_to_end(&mut reply),
    };
    match read {
        // A server that has no place left says so and closes without reading.
        Err(e) if e.kind() != io::ErrorKind::ConnectionReset || reply.is_empty() => Err(e.into()),
        _ if reply.is_empty() => Err(ProtoError::Truncated),
        _ if reply.len() > frame::MAX_LEN => Err(ProtoError::TooLong(reply.len())),
        _ => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;
    use crate::socket::Deadline;

    #[test]
    fn a_reply_that_came_before_the_request_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p11.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let deadline = Deadline::after(Duration::from_secs(5));
        let socket = Socket::connect(&path, deadline).unwrap();
        let (mut full_server, _) = listener.accept().unwrap();
        full_server.write_all(b"busy").unwrap();
        drop(full_server);
        assert_eq!(exchange(socket, b"request").unwrap(), b"busy");
    }
}
