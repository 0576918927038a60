//! A server over a service without a token, on a socket of its own.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::daemon::net::{ConnectionLimits, Handler, Server, Socket};
use crate::daemon::policy::Policy;
use crate::daemon::request::Served;
use crate::engine::Timeouts;
use p11_proto::message::{Ping, Sign};
use p11_proto::{Request, Response, frame};
use tempfile::TempDir;

use super::super::checks::fake::{Fake, WAIT, identity};

/// How long a test waits for what should happen at once.
pub const WAIT_LIMIT: Duration = Duration::from_secs(10);

pub struct Fixture {
    pub fake: Arc<Fake>,
    pub server: Arc<Server>,
    path: PathBuf,
    stop: Option<UnixStream>,
    accepting: Option<JoinHandle<io::Result<()>>>,
    _folder: TempDir,
}

impl Fixture {
    pub fn new(limits: ConnectionLimits) -> Fixture {
        Fixture::with_timeouts(limits, Timeouts::default())
    }

    /// The same where the service has other deadlines.
    pub fn with_timeouts(limits: ConnectionLimits, timeouts: Timeouts) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p11.sock");
        let fake = Arc::new(Fake::obedient());
        let socket = Socket::bind(&path).unwrap();
        let handler = Handler::new(Served::new(fake.clone(), Policy::default()), timeouts);
        let server = Server::new(socket, handler, limits);
        let (stop, stopped) = UnixStream::pair().unwrap();
        let accepting = {
            let server = server.clone();
            thread::spawn(move || server.accept(&stopped))
        };
        Fixture {
            fake,
            server,
            path,
            stop: Some(stop),
            accepting: Some(accepting),
            _folder: folder,
        }
    }

    /// A client that has not said anything yet.
    pub fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
        stream.set_write_timeout(Some(WAIT_LIMIT)).unwrap();
        Client(stream)
    }

    /// A client that has a place: it was answered.
    pub fn served(&self) -> Client {
        let mut client = self.connect();
        client.greet();
        client.ping().unwrap();
        client
    }

    /// A client with a signature that lasts until the test lets it go.
    pub fn at_work(&self) -> Client {
        self.at_work_on(WAIT)
    }

    /// A client with a signature of this message, which lasts.
    pub fn at_work_on(&self, message: &[u8]) -> Client {
        let before = self.fake.waiting();
        let mut client = self.connect();
        client.greet();
        client.send(&sign(message));
        wait_until(|| self.fake.waiting() > before);
        client
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.fake.release();
        drop(self.stop.take());
        let ended = self.accepting.take().unwrap().join().unwrap();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

/// The other end of a connection.
pub struct Client(pub UnixStream);

impl Client {
    /// Says that it speaks protocol 1. Where there is no place it may be refused before.
    pub fn greet(&mut self) {
        let _ = self.0.write_all(&frame::PREAMBLE);
    }

    pub fn send(&mut self, request: &Request) {
        frame::write(&mut self.0, request).unwrap();
    }

    /// The next answer; none where the server has closed the connection.
    pub fn answer(&mut self) -> Option<Response> {
        let body = frame::read(&mut self.0).expect("an answer or the end");
        body.map(|body| frame::decode(&body).unwrap())
    }

    pub fn ping(&mut self) -> Option<()> {
        let sent = frame::write(&mut self.0, &Request::Ping(Ping::default()));
        let answer = sent.ok().and_then(|()| self.answer());
        answer.map(|answer| assert!(matches!(answer, Response::Pong(_)), "{answer:?}"))
    }

    /// Whether the server has closed the connection, without a word. Waits for it for a moment.
    pub fn is_closed(&mut self) -> bool {
        self.0
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let end = self.0.read(&mut [0]);
        self.0.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
        match end {
            Ok(0) => true,
            Ok(_) => panic!("it said something"),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// A request for a signature of this message.
pub fn sign(message: &[u8]) -> Request {
    Request::Sign(Sign::new("pkcs11:", 0x0807, message.to_vec(), identity()))
}

/// Waits until it is so; fails if it never is.
#[track_caller]
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT_LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "it never came to be");
        thread::sleep(Duration::from_millis(1));
    }
}
