//! Who answers a request: its own thread, or the watch when the token takes too long.
//!
//! A PKCS#11 call cannot be interrupted. Its thread waits for it, for ever if need be; the client is
//! answered by the watch and its place on the server is free again.

use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv, send};
use p11_proto::frame::Body;

use super::peer::Peer;

/// One connection, as its thread, the watch and the list of places see it.
pub struct Connection {
    /// The socket.
    pub stream: UnixStream,
    /// Who is at the other end.
    pub peer: Peer,
    /// [`IDLE`], [`ANSWERING`], [`CLOSED`], or the time at which the running request is overdue.
    state: AtomicU64,
    /// When the last complete request came, or the connection itself.
    heard: AtomicU64,
    /// What the watch answers, in the protocol of the client.
    overdue_answer: OnceLock<Body>,
}

const IDLE: u64 = 0;
const ANSWERING: u64 = 1;
const CLOSED: u64 = u64::MAX;

impl Connection {
    /// A connection that was just accepted.
    pub fn new(stream: UnixStream, peer: Peer) -> Connection {
        Connection {
            stream,
            peer,
            state: AtomicU64::new(IDLE),
            heard: AtomicU64::new(now()),
            overdue_answer: OnceLock::new(),
        }
    }

    /// Settles what the client is told when a request is overdue.
    pub fn set_overdue_answer(&self, answer: Body) {
        let _ = self.overdue_answer.set(answer);
    }

    /// A complete request has come, and its operation begins. False if the connection was given up
    /// meanwhile.
    pub fn begin(&self, deadline: Duration) -> bool {
        let due = now() + deadline.as_millis() as u64;
        self.heard.store(now(), Ordering::Relaxed);
        self.swap(IDLE, due)
    }

    /// The operation has ended. False if the watch has answered in its place.
    pub fn finish(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        state != CLOSED && self.swap(state, ANSWERING)
    }

    /// The answer was sent.
    pub fn answered(&self) {
        self.swap(ANSWERING, IDLE);
    }

    /// When the last complete request came, on a clock of its own.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Whether no request runs or is being answered.
    pub fn is_idle(&self) -> bool {
        self.state.load(Ordering::Acquire) == IDLE
    }

    /// Ends the connection if no request runs on it.
    pub fn close_if_idle(&self) -> bool {
        let closed = self.swap(IDLE, CLOSED);
        if closed {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        closed
    }

    /// Answers in place of an operation that is overdue, and ends the connection.
    pub fn close_if_overdue(&self) -> bool {
        let due = self.state.load(Ordering::Acquire);
        let is_overdue = due != IDLE && due != ANSWERING && due != CLOSED && due <= now();
        if !is_overdue || !self.swap(due, CLOSED) {
            return false;
        }
        if let Some(answer) = self.overdue_answer.get() {
            self.send_now(answer);
        }
        let _ = self.stream.shutdown(Shutdown::Both);
        true
    }

    /// The first byte that the client has sent, if it has sent one; it stays there to be read.
    pub fn first_byte(&self) -> Option<u8> {
        let mut first = [0];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.stream.as_raw_fd(), &mut first, flags) {
            Ok(1) => Some(first[0]),
            _ => None,
        }
    }

    /// Sends without waiting for a client that does not read.
    pub fn send_now(&self, answer: &[u8]) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(self.stream.as_raw_fd(), answer, flags);
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// Milliseconds since the first call, and never one of the markers.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 2
}
