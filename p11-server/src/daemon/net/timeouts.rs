//! Reading and writing a client's socket with deadlines.
//!
//! Waiting is done in poll(2). A thread that waits in read(2) of a UNIX socket is woken twice: when the
//! client takes its answer, which makes room to write, and when it sends its next request.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use p11_proto::frame;
use zeroize::Zeroizing;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IoTimeouts {
    /// To begin a request.
    pub idle: Duration,
    /// To send the rest of one that was begun.
    pub read: Duration,
    /// To take its answer.
    pub write: Duration,
    /// To wait for a place where all others are at work.
    pub queue: Duration,
}

impl Default for IoTimeouts {
    fn default() -> Self {
        IoTimeouts {
            idle: Duration::from_secs(5 * 60),
            read: Duration::from_secs(5),
            write: Duration::from_secs(5),
            queue: Duration::from_secs(5),
        }
    }
}

/// A connection that is read and written with deadlines. Buffered, since most requests arrive whole
/// and should cost one call.
pub(crate) struct DeadlineStream<'s> {
    stream: &'s UnixStream,
    timeouts: IoTimeouts,
    /// Wiped when dropped: requests carry PINs.
    buffer: Zeroizing<Vec<u8>>,
    filled: Range<usize>,
    /// When the request that was begun has to be there.
    due: Option<Instant>,
}

impl<'s> DeadlineStream<'s> {
    /// A connection that was just made.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: &'s UnixStream, timeouts: IoTimeouts) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(DeadlineStream {
            stream,
            timeouts,
            buffer: Zeroizing::new(vec![0; 4096]),
            filled: 0..0,
            due: None,
        })
    }

    /// How long the next request may take to begin.
    pub fn set_idle(&mut self, idle: Duration) {
        self.timeouts.idle = idle;
    }

    /// The last request is done with; the next may take its time to begin.
    pub fn next_request(&mut self) {
        let begun = !self.filled.is_empty();
        self.due = begun.then(|| Instant::now() + self.timeouts.read);
    }

    /// Whether a part of a request has arrived.
    pub fn has_begun(&self) -> bool {
        self.due.is_some()
    }

    /// The first byte, which stays there to be read; `None` at the end.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, and what the system says.
    pub fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.filled.is_empty() {
            self.fill_buf()?;
        }
        Ok(self.buffered().first().copied())
    }

    /// Writes all of an answer.
    ///
    /// # Errors
    /// `TimedOut` for a client that does not take it in time, and what the system says.
    pub fn send(&mut self, mut answer: &[u8]) -> io::Result<()> {
        let due = Instant::now() + self.timeouts.write;
        while !answer.is_empty() {
            match self.stream.write(answer) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => answer = answer.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_for(PollFlags::POLLOUT, due)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes leave of a client that may still be sending: a socket that is closed with bytes unread
    /// resets the connection, and a client that reads to its end would miss the last answer.
    ///
    /// # Errors
    /// What ended the wait for the client's own end.
    pub fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.due = Some(Instant::now() + self.timeouts.read);
        let mut allowed = frame::MAX_LEN;
        loop {
            self.fill_buf()?;
            match allowed.checked_sub(self.filled.len()) {
                Some(left) if left < allowed => allowed = left,
                _ => return Ok(()),
            }
        }
    }

    fn buffered(&self) -> &[u8] {
        self.buffer.get(self.filled.clone()).unwrap_or_default()
    }

    fn fill_buf(&mut self) -> io::Result<()> {
        let idle = || Instant::now() + self.timeouts.idle;
        self.wait_for(PollFlags::POLLIN, self.due.unwrap_or_else(idle))?;
        let count = self.stream.read(&mut self.buffer)?;
        self.filled = 0..count;
        if count > 0 && self.due.is_none() {
            self.due = Some(Instant::now() + self.timeouts.read);
        }
        Ok(())
    }

    fn wait_for(&self, what: PollFlags, due: Instant) -> io::Result<()> {
        loop {
            let remaining = due.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // In whole milliseconds, so one more than those that are left.
            let timeout = remaining.saturating_add(Duration::from_millis(1));
            let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.stream.as_fd(), what)], timeout) {
                Ok(1..) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for DeadlineStream<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.filled.is_empty() {
            self.fill_buf()?;
        }
        let count = self.buffered().read(out)?;
        self.filled.start += count;
        Ok(count)
    }
}
