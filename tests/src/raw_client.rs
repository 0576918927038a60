//! Clients that send bytes which no library would.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use p11_proto::{Request, Response, frame, message::Ping, tedge1};

use crate::wait::TIMEOUT;

/// One connection of protocol 1, or of none.
pub struct RawClient(pub UnixStream);

impl RawClient {
    /// Connects and says nothing.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the server listens");
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(stream)
    }

    /// Connects and says that it speaks protocol 1.
    pub fn with_preamble(socket: &Path) -> Self {
        let mut raw = Self::connect(socket);
        // A server that has no place for us may be gone by now.
        let _ = raw.0.write_all(&frame::PREAMBLE);
        raw
    }

    /// Connects and is answered, and so has one of the places.
    pub fn admitted(socket: &Path) -> Self {
        let mut raw = Self::with_preamble(socket);
        assert!(raw.ping(), "no place");
        raw
    }

    /// Sends a request and waits for nothing.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        self.0.write_all(&frame::encode(request).unwrap())
    }

    /// The next answer; none when the server has closed the connection.
    pub fn answer(&mut self) -> Option<Response> {
        let body = frame::read(&mut self.0).ok()??;
        Some(frame::decode(&body).unwrap())
    }

    /// One request and its answer.
    pub fn ask(&mut self, request: &Request) -> Option<Response> {
        self.send(request).ok()?;
        self.answer()
    }

    /// Whether the server answers.
    pub fn ping(&mut self) -> bool {
        matches!(
            self.ask(&Request::Ping(Ping::default())),
            Some(Response::Pong(_))
        )
    }

    /// Whether the server has closed the connection, or does so in a moment.
    pub fn is_closed(&mut self) -> bool {
        let moment = Duration::from_millis(200);
        self.0.set_read_timeout(Some(moment)).unwrap();
        let end = self.0.read(&mut [0]);
        self.0.set_read_timeout(Some(TIMEOUT)).unwrap();
        match end {
            Ok(0) => true,
            Ok(_) => panic!("it said something"),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// Sends bytes on a connection of its own and says that this was all; the whole reply.
pub fn exchange_bytes(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut raw = RawClient::connect(socket);
    raw.0.write_all(bytes).unwrap();
    raw.0.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    raw.0.read_to_end(&mut reply).unwrap();
    reply
}

/// One request of a released client.
pub fn ask_tedge1(socket: &Path, request: &tedge1::Request) -> tedge1::Response {
    let reply = exchange_bytes(socket, &request.encode().unwrap());
    tedge1::Response::decode(&reply).unwrap()
}
