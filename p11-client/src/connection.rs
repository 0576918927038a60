//! A connection that speaks protocol 1.

use std::io::{self, BufReader, Write};

use p11_proto::{Error, frame};

use crate::socket::{Deadline, Socket};

/// A connection whose preamble was sent.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<Socket>);

impl Connection {
    /// Sends the preamble.
    pub(crate) fn new(mut socket: Socket) -> Result<Self, Error> {
        match socket.write_all(&frame::PREAMBLE) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
            _ => Ok(Connection(BufReader::new(socket))),
        }
    }

    /// Sends a frame and returns the body of the answer.
    pub(crate) fn exchange(
        &mut self,
        frame: &[u8],
        deadline: Deadline,
    ) -> Result<frame::Body, Error> {
        let socket = self.0.get_mut();
        socket.set_deadline(deadline);
        match socket.write_all(frame) {
            // A server with too many connections answers `Busy` and closes without reading.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
            _ => frame::read(&mut self.0)?.ok_or(Error::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use p11_proto::message::Ping;
    use p11_proto::{ErrorCode, Failure, Request, Response};

    use super::*;
    use crate::socket::connected;

    #[test]
    fn an_answer_that_came_before_the_request_is_read() {
        let (socket, mut full_server) = connected();
        let busy = Response::Error(Failure::new(ErrorCode::Busy, "too many connections"));
        frame::write(&mut full_server, &busy).unwrap();
        drop(full_server);

        let ping = frame::encode(&Request::Ping(Ping::default())).unwrap();
        let mut connection = Connection::new(socket).unwrap();
        let passed = Deadline::after(Duration::ZERO);
        assert!(connection.exchange(&ping, passed).is_err());
        // Each request has a deadline of its own.
        let deadline = Deadline::after(Duration::from_secs(5));
        let body = connection.exchange(&ping, deadline).unwrap();
        assert_eq!(frame::decode::<Response>(&body).unwrap(), busy);
    }
}
