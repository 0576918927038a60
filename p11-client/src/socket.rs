//! The server's socket: connects, reads and writes, and gives up when the deadline passes.
//!
//! It waits in poll(2). A thread that waits in read(2) of a UNIX socket is woken twice: when the peer
//! takes what was written, which makes room to write, and when the peer answers. Where answers come
//! about as fast as a thread falls asleep and is woken, it waits for them awake.

use std::hint;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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

/// An answer that comes sooner lets the next one be waited for awake, for as long.
const QUICK: Duration = Duration::from_micros(200);

/// A socket that reads and writes only as long as its deadline allows.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: UnixStream,
    deadline: Deadline,
    /// Whether the last answer was quick.
    is_quick: bool,
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
                Ok(()) => break,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        stream.set_nonblocking(true)?;
        Ok(Socket {
            stream,
            deadline,
            is_quick: false,
        })
    }

    /// Begins the time of another request.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Tells the server that nothing more will be sent.
    pub(crate) fn finish_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn wait_for(&self, what: PollFlags) -> io::Result<()> {
        loop {
            let remaining = self.deadline.remaining()?;
            // In whole milliseconds, so one more than those that are left.
            let timeout = remaining.saturating_add(Duration::from_millis(1));
            let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.stream.as_fd(), what)], timeout) {
                Ok(1..) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let waiting = Waiting::begin();
        while self.is_quick && waiting.is_alone() && began.elapsed() < QUICK {
            match self.stream.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => hint::spin_loop(),
                other => return other,
            }
        }
        self.wait_for(PollFlags::POLLIN)?;
        self.is_quick = began.elapsed() < QUICK;
        self.stream.read(buffer)
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

/// A thread that waits for an answer, one of so many of this process.
struct Waiting;

static WAITING: AtomicUsize = AtomicUsize::new(0);

impl Waiting {
    fn begin() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Waiting
    }

    /// Whether there is a processor for it beside the server's.
    fn is_alone(&self) -> bool {
        static SEVERAL: OnceLock<bool> = OnceLock::new();
        let several = || thread::available_parallelism().is_ok_and(|count| count.get() > 1);
        WAITING.load(Ordering::Relaxed) == 1 && *SEVERAL.get_or_init(several)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
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
