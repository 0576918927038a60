//! The states of one connection: who answers its request, its own thread or the reaper of overdue ones.
//!
//! A PKCS#11 call cannot be interrupted. Its thread waits for it, for ever if need be; the client is
//! answered by the reaper and its place on the server is free again.

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SndBuf;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use p11_proto::frame::Body;

use crate::daemon::peer::Peer;
use crate::daemon::request::Waits;

/// How long an answer may wait to be taken while nobody else needs the place.
const SLUGGISH: Duration = Duration::from_secs(1);

/// How many bytes of answers may wait in a socket. The system doubles it, and counts what it needs itself.
const UNTAKEN: usize = 8192;

/// One connection, as its thread, the reaper and the limiter see it.
pub(crate) struct Connection {
    /// The socket.
    pub stream: UnixStream,
    /// Who is at the other end.
    pub peer: Peer,
    progress: Mutex<Progress>,
    /// What others than its own thread answer, in the protocol of the client.
    answers: OnceLock<Answers>,
}

/// Answers that are made before they are needed.
pub(crate) struct Answers {
    /// To a request that takes too long.
    pub overdue: Body,
    /// To a client that has to make room before its first request was there.
    pub busy: Body,
}

struct Progress {
    state: State,
    /// When the last complete request came, or the connection itself.
    last_request: Instant,
    /// Whether there has been a complete request.
    has_asked: bool,
    /// The server stops: the request that runs is the last.
    last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No complete request is there.
    Idle,
    /// A request runs, and is overdue at this time.
    Working(Instant),
    /// Its answer is being sent, since then.
    Answering(Instant),
    /// The connection was given up.
    Closed,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(stream: UnixStream, peer: Peer) -> Connection {
        Connection {
            stream,
            peer,
            progress: Mutex::new(Progress {
                state: State::Idle,
                last_request: Instant::now(),
                has_asked: false,
                last: false,
            }),
            answers: OnceLock::new(),
        }
    }

    /// From now on, few answers wait in the socket for a client that does not take them. Their memory is the server's.
    pub fn limit_untaken(&self) {
        // Where it fails, they are as many as the system lets a socket hold.
        let _ = setsockopt(&self.stream, SndBuf, &UNTAKEN);
    }

    /// Settles what the client is told by others than its own thread.
    pub fn set_answers(&self, answers: Answers) {
        let _ = self.answers.set(answers);
    }

    /// A complete request has come, and its operation begins. False if the connection was given up
    /// meanwhile.
    pub fn begin(&self, deadline: Duration) -> bool {
        let mut progress = self.progress();
        progress.last_request = Instant::now();
        progress.has_asked = true;
        let is_open = progress.state != State::Closed;
        if is_open {
            progress.state = State::Working(Instant::now() + deadline);
        }
        is_open
    }

    /// The operation has ended. False if the reaper has answered in its place.
    pub fn finish(&self) -> bool {
        let mut progress = self.progress();
        let is_open = progress.state != State::Closed;
        if is_open {
            progress.state = State::Answering(Instant::now());
        }
        is_open
    }

    /// The answer was sent. False if there is to be no further request.
    pub fn answered(&self) -> bool {
        let mut progress = self.progress();
        let goes_on = progress.state != State::Closed && !progress.last;
        if goes_on {
            progress.state = State::Idle;
        }
        goes_on
    }

    /// Since when no complete request has come; `None` while one is at work. A client that does not
    /// take its answer keeps nobody at work.
    pub fn silent_since(&self) -> Option<Instant> {
        let progress = self.progress();
        progress.is_silent().then_some(progress.last_request)
    }

    /// Ends the connection if no request is at work on it, and none has come that is unread. `busy` is for a
    /// client that has not said which protocol it speaks.
    pub fn close_if_silent(&self, busy: &[u8]) -> bool {
        let mut progress = self.progress();
        let has_unread = progress.state == State::Idle && self.first_byte().is_some();
        if !progress.is_silent() || has_unread {
            return false;
        }
        // A client that has been answered connects again; another one would not know why it should.
        if !progress.has_asked {
            self.send_now(self.answers.get().map_or(busy, |answers| &answers.busy));
        }
        self.close(&mut progress)
    }

    /// Ends the connection, as soon as the request that is at work has been answered.
    pub fn close_when_answered(&self) -> bool {
        let mut progress = self.progress();
        progress.last = true;
        progress.state == State::Idle && self.close(&mut progress)
    }

    /// Answers in place of an operation that is overdue, and ends the connection.
    pub fn close_if_overdue(&self) -> bool {
        let mut progress = self.progress();
        if !matches!(progress.state, State::Working(due) if due <= Instant::now()) {
            return false;
        }
        if let Some(answers) = self.answers.get() {
            self.send_now(&answers.overdue);
        }
        self.close(&mut progress)
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

    /// Whether the client takes its answers, all but a few small ones. Waits for it for a moment.
    pub fn is_taken(&self) -> bool {
        // A socket can be written to where no more than a fourth of its buffer is used.
        let mut ready = [PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT)];
        let timeout = PollTimeout::try_from(SLUGGISH).unwrap_or(PollTimeout::ZERO);
        let told = poll(&mut ready, timeout);
        let [ready] = ready.map(|fd| fd.revents().unwrap_or_else(PollFlags::empty));
        told.is_ok() && ready.contains(PollFlags::POLLOUT)
    }

    /// Takes leave of a client without waiting for it, with a last answer.
    pub fn close_after(&self, answer: &[u8]) {
        self.send_now(answer);
        let _ = self.stream.shutdown(Shutdown::Write);
        // Bytes that are unread when the socket is closed would reset the connection. Of a client
        // that sends on and on no more are taken than a socket holds.
        let mut unread = [0; 4096];
        for _ in 0..64 {
            let flags = MsgFlags::MSG_DONTWAIT;
            let Ok(1..) = recv(self.stream.as_raw_fd(), &mut unread, flags) else {
                break;
            };
        }
    }

    /// Sends without waiting for a client that does not read.
    fn send_now(&self, answer: &[u8]) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(self.stream.as_raw_fd(), answer, flags);
    }

    fn close(&self, progress: &mut Progress) -> bool {
        progress.state = State::Closed;
        let _ = self.stream.shutdown(Shutdown::Both);
        true
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waits for Connection {
    /// Whether nobody will read an answer: the client has closed the connection, or the reaper has. A
    /// client that has only shut down its writing half still reads.
    fn has_left(&self) -> bool {
        // No events are asked for, so that only the end of both directions is told.
        let mut end = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let told = poll(&mut end, PollTimeout::ZERO);
        let [end] = end.map(|fd| fd.revents().unwrap_or_else(PollFlags::empty));
        told.is_ok() && end.contains(PollFlags::POLLHUP)
    }
}

impl Progress {
    fn is_silent(&self) -> bool {
        match self.state {
            State::Idle => true,
            State::Answering(since) => since.elapsed() > SLUGGISH,
            State::Working(_) | State::Closed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        (Connection::new(ours, peer), theirs)
    }

    #[test]
    fn who_has_closed_the_connection_has_left_and_who_has_only_said_all_has_not() {
        let (connection, client) = connection();
        assert!(!connection.has_left());
        client.shutdown(Shutdown::Write).unwrap();
        assert!(!connection.has_left());
        drop(client);
        assert!(connection.has_left());
    }

    #[test]
    fn whom_the_reaper_has_answered_has_left() {
        let (connection, _client) = connection();
        assert!(connection.begin(Duration::ZERO));
        assert!(!connection.has_left());
        assert!(connection.close_if_overdue());
        assert!(connection.has_left());
    }
}
