//! Reading and writing a client's socket with deadlines, at no cost for clients that keep them.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use p11_proto::frame;
use zeroize::Zeroizing;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To begin a request.
    pub idle: Duration,
    /// To send the rest of one that was begun.
    pub request: Duration,
    /// To take its answer.
    pub reply: Duration,
    /// To wait for a place where all others are at work.
    pub turn: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            idle: Duration::from_secs(5 * 60),
            request: Duration::from_secs(5),
            reply: Duration::from_secs(5),
            turn: Duration::from_secs(5),
        }
    }
}

/// A connection that is read and written with patience. Buffered, since most requests arrive whole
/// and should cost one call.
pub struct Line<'s> {
    stream: &'s UnixStream,
    patience: Patience,
    /// Wiped when dropped: requests carry PINs.
    buffer: Zeroizing<Vec<u8>>,
    filled: Range<usize>,
    /// When the request that was begun has to be there.
    due: Option<Instant>,
    read_timeout: Duration,
    write_timeout: Duration,
}

impl<'s> Line<'s> {
    /// A connection that was just made.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: &'s UnixStream, patience: Patience) -> io::Result<Self> {
        stream.set_read_timeout(Some(patience.idle))?;
        stream.set_write_timeout(Some(patience.reply))?;
        Ok(Line {
            stream,
            patience,
            buffer: Zeroizing::new(vec![0; 4096]),
            filled: 0..0,
            due: None,
            read_timeout: patience.idle,
            write_timeout: patience.reply,
        })
    }

    /// The last request is done with; the next may take its time to begin.
    pub fn next_request(&mut self) {
        let begun = !self.filled.is_empty();
        self.due = begun.then(|| Instant::now() + self.patience.request);
    }

    /// Whether a part of a request has arrived.
    pub fn has_begun(&self) -> bool {
        self.due.is_some()
    }

    /// The first byte, which stays there to be read; `None` at the end.
    ///
    /// # Errors
    /// `WouldBlock` or `TimedOut` when patience ends, and what the system says.
    pub fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.filled.is_empty() {
            self.fill()?;
        }
        Ok(self.there().first().copied())
    }

    /// Writes all of an answer.
    ///
    /// # Errors
    /// `WouldBlock` or `TimedOut` for a client that does not take it in time, and what the system
    /// says.
    pub fn send(&mut self, mut answer: &[u8]) -> io::Result<()> {
        let due = Instant::now() + self.patience.reply;
        if self.write_timeout != self.patience.reply {
            self.set_write_timeout(self.patience.reply)?;
        }
        loop {
            match self.stream.write(answer) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) if count == answer.len() => break,
                Ok(count) => answer = answer.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // Not whole at once: the rest has to fit into what is left of the time.
            self.set_write_timeout(remaining(due)?)?;
        }
        Ok(())
    }

    /// Takes leave of a client that may still be sending: a socket that is closed with bytes unread
    /// resets the connection, and a client that reads to its end would miss the last answer.
    ///
    /// # Errors
    /// What ended the wait for the client's own end.
    pub fn hang_up(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.due = Some(Instant::now() + self.patience.request);
        let mut patience = frame::MAX_LEN;
        loop {
            self.fill()?;
            match patience.checked_sub(self.filled.len()) {
                Some(left) if left < patience => patience = left,
                _ => return Ok(()),
            }
        }
    }

    fn set_write_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.write_timeout = timeout;
        self.stream.set_write_timeout(Some(timeout))
    }

    fn there(&self) -> &[u8] {
        self.buffer.get(self.filled.clone()).unwrap_or_default()
    }

    fn fill(&mut self) -> io::Result<()> {
        let timeout = match self.due {
            None => self.patience.idle,
            Some(due) => remaining(due)?,
        };
        if self.read_timeout != timeout {
            self.stream.set_read_timeout(Some(timeout))?;
            self.read_timeout = timeout;
        }
        let count = self.stream.read(&mut self.buffer)?;
        self.filled = 0..count;
        if count > 0 && self.due.is_none() {
            self.due = Some(Instant::now() + self.patience.request);
        }
        Ok(())
    }
}

impl Read for Line<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.filled.is_empty() {
            self.fill()?;
        }
        let count = self.there().read(out)?;
        self.filled.start += count;
        Ok(count)
    }
}

fn remaining(due: Instant) -> io::Result<Duration> {
    let remaining = due.saturating_duration_since(Instant::now());
    match remaining.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(remaining),
    }
}
