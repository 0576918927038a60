//! The client's UNIX socket: connects, reads and writes within the deadline of a request.

use std::io::{self, Read, Write};
#[cfg(feature = "tedge1")]
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};

use crate::error::Error;
use crate::socket_path::connect_error;

/// Where the server is, and until when it must have answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) path: &'a Path,
    pub(crate) deadline: Deadline,
    /// The only user who may be there.
    pub(crate) server_uid: Option<u32>,
}

impl Target<'_> {
    /// A new connection.
    pub(crate) fn connect(self) -> Result<Socket, Error> {
        let connected = Socket::connect(self.path, self.deadline);
        let socket = connected.map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.error(e.into()),
            _ => connect_error(self.path, e),
        })?;
        let Some(expected) = self.server_uid else {
            return Ok(socket);
        };
        let peer = getsockopt(&socket.stream, PeerCredentials);
        let found = peer
            .map_err(|e| self.error(io::Error::from(e).into()))?
            .uid();
        match found == expected {
            true => Ok(socket),
            false => Err(Error::WrongServer {
                path: self.path.to_owned(),
                found,
                expected,
            }),
        }
    }

    /// Why there is no answer from this server.
    pub(crate) fn error(self, error: p11_proto::Error) -> Error {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, WouldBlock};
        let path = self.path.to_owned();
        match error {
            p11_proto::Error::Truncated => Error::ConnectionLost(path),
            p11_proto::Error::Io(source) => match source.kind() {
                BrokenPipe | ConnectionReset => Error::ConnectionLost(path),
                WouldBlock | TimedOut => Error::Deadline {
                    path,
                    deadline: self.deadline.allowed,
                },
                _ => Error::Socket { path, source },
            },
            other => Error::not_understood(self.path, other),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: UnixStream,
    deadline: Deadline,
}

impl Socket {
    /// Connects.
    ///
    /// std's `connect` has no timeout: it waits forever while the queue of a hung server is full.
    fn connect(path: &Path, deadline: Deadline) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let stream = UnixStream::from(stream);
        loop {
            // On Linux, the timeout for writing is that for connecting, too.
            stream.set_write_timeout(Some(deadline.remaining()?))?;
            match connect(stream.as_raw_fd(), &address) {
                Ok(()) => break,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        stream.set_nonblocking(true)?;
        Ok(Socket { stream, deadline })
    }

    /// Sets the deadline of the next request.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Tells the server that the request is complete.
    #[cfg(feature = "tedge1")]
    pub(crate) fn finish_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn wait_for(&self, events: PollFlags) -> io::Result<()> {
        loop {
            // poll counts in milliseconds; rounded down, it would return before the deadline.
            let timeout = self
                .deadline
                .remaining()?
                .saturating_add(Duration::from_millis(1));
            let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.stream.as_fd(), events)], timeout) {
                Ok(1..) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Not in read(2): there a thread wakes up twice, the first time when the server has read.
        self.wait_for(PollFlags::POLLIN)?;
        match self.stream.read(buffer) {
            // The server closed with a part of the request unread. It may have answered before.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(0),
            other => other,
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_for(PollFlags::POLLOUT)?;
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// When a request must be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    start: Instant,
    allowed: Duration,
}

impl Deadline {
    /// A deadline this long from now.
    pub(crate) fn after(allowed: Duration) -> Self {
        let start = Instant::now();
        Deadline { start, allowed }
    }

    /// Whether more than this is left.
    pub(crate) fn allows(self, time: Duration) -> bool {
        self.remaining().is_ok_and(|remaining| time < remaining)
    }

    /// What is left, never zero: a socket takes a timeout of zero for none.
    fn remaining(self) -> io::Result<Duration> {
        self.allowed
            .checked_sub(self.start.elapsed())
            .filter(|remaining| !remaining.is_zero())
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

/// A connection as a client has it, and its other end.
#[cfg(test)]
pub(crate) fn connected() -> (Socket, UnixStream) {
    let folder = tempfile::tempdir().unwrap();
    let path = &folder.path().join("p11.sock");
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    let target = Target {
        path,
        deadline: Deadline::after(Duration::from_secs(5)),
        server_uid: None,
    };
    let socket = target.connect().unwrap();
    (socket, listener.accept().unwrap().0)
}
