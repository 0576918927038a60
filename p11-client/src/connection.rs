//! One connection that speaks protocol 1: frames go out, frames come back.

use std::io::{self, BufReader, Write};

use p11_proto::{Error, frame};

use crate::socket::{Deadline, Socket};

/// A connection that speaks protocol 1.
#[derive(Debug)]
pub(crate) struct Connection {
    reader: BufReader<Socket>,
    greeted: bool,
}

impl Connection {
    /// Takes a fresh socket; the preamble goes out with the first request.
    pub(crate) fn new(socket: Socket) -> Self {
        Connection {
            reader: BufReader::new(socket),
            greeted: false,
        }
    }

    /// Sends one frame and waits for the body of the answer.
    pub(crate) fn exchange(
        &mut self,
        frame: &[u8],
        deadline: Deadline,
    ) -> Result<frame::Body, Error> {
        let socket = self.reader.get_mut();
        socket.set_deadline(deadline);
        if self.greeted {
            socket.write_all(frame)?;
            return self.answer();
        }
        let sent = socket
            .write_all(&frame::PREAMBLE)
            .and_then(|()| socket.write_all(frame));
        self.greeted = true;
        match sent {
            // A server that has no place left says so and closes without reading.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.answer().map_err(|_| Error::Io(e))
            }
            Err(e) => Err(e.into()),
            Ok(()) => self.answer(),
        }
    }

    fn answer(&mut self) -> Result<frame::Body, Error> {
        frame::read(&mut self.reader)?.ok_or(Error::Truncated)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use p11_proto::message::Ping;
    use p11_proto::{ErrorCode, Failure, Request, Response};

    use super::*;

    #[test]
    fn an_answer_that_came_before_the_request_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p11.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let deadline = Deadline::after(Duration::from_secs(5));
        let mut connection = Connection::new(Socket::connect(&path, deadline).unwrap());
        let (mut full_server, _) = listener.accept().unwrap();
        let busy = Response::Error(Failure::new(ErrorCode::Busy, "too many connections"));
        frame::write(&mut full_server, &busy).unwrap();
        drop(full_server);

        let ping = frame::encode(&Request::Ping(Ping::default())).unwrap();
        let body = connection.exchange(&ping, deadline).unwrap();
        assert_eq!(frame::decode::<Response>(&body).unwrap(), busy);
    }
}
