//! The server's socket: connects, reads and writes, and gives up when the deadline passes.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::error::Error;

/// Where the server is, and until when it must have answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) path: &'a Path,
    pub(crate) deadline: Deadline,
}

impl Target<'_> {
    /// A fresh socket.
    pub(crate) fn connect(self) -> Result<Socket, Error> {
        Socket::connect(self.path, self.deadline).map_err(|e| Error::from_connecting(e, self))
    }
}

/// A socket that reads and writes only as long as its deadline allows.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: UnixStream,
    deadline: Deadline,
}

impl Socket {
    /// Connects.
    ///
    /// std's own `connect` waits without end where a stuck server has left no place in its queue.
    pub(crate) fn connect(path: &Path, deadline: Deadline) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let stream = UnixStream::from(stream);
        loop {
            // Linux counts the time to connect as time to write.
            stream.set_write_timeout(Some(deadline.remaining()?))?;
            match connect(stream.as_raw_fd(), &address) {
                Ok(()) => return Ok(Socket { stream, deadline }),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Begins the time of another request.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Tells the server that nothing more will be sent.
    pub(crate) fn finish_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let remaining = self.deadline.remaining()?;
        self.stream.set_read_timeout(Some(remaining))?;
        self.stream.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let remaining = self.deadline.remaining()?;
        self.stream.set_write_timeout(Some(remaining))?;
        self.stream.write(buffer)
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

    /// How long the request may take in all.
    pub(crate) fn allowed(self) -> Duration {
        self.allowed
    }

    /// Whether this much time is left.
    pub(crate) fn allows(self, time: Duration) -> bool {
        self.remaining().is_ok_and(|remaining| time < remaining)
    }

    /// What is left, never zero, which a socket would take for no limit at all.
    fn remaining(self) -> io::Result<Duration> {
        self.allowed
            .checked_sub(self.start.elapsed())
            .filter(|remaining| !remaining.is_zero())
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}
