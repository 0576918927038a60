//! One connection to the server: frames go out, frames come back, all within a deadline.

use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use p11_proto::{Error, frame};

/// A connection that speaks protocol 1.
#[derive(Debug)]
pub(crate) struct Connection {
    reader: BufReader<Timed>,
    greeted: bool,
}

impl Connection {
    /// Connects; the preamble goes out with the first request.
    ///
    /// std's own `connect` waits without end where a stuck server has left no place in its queue.
    pub(crate) fn open(path: &Path, deadline: Deadline) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let socket = UnixStream::from(socket);
        loop {
            // Linux counts the time to connect as time to write.
            socket.set_write_timeout(Some(deadline.remaining()?))?;
            match connect(socket.as_raw_fd(), &address) {
                Ok(()) => break,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Connection {
            reader: BufReader::new(Timed { socket, deadline }),
            greeted: false,
        })
    }

    /// Sends one frame and waits for the body of the answer.
    pub(crate) fn exchange(
        &mut self,
        frame: &[u8],
        deadline: Deadline,
    ) -> Result<frame::Body, Error> {
        let socket = self.reader.get_mut();
        socket.deadline = deadline;
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

/// A socket that reads and writes only as long as its deadline allows.
#[derive(Debug)]
struct Timed {
    socket: UnixStream,
    deadline: Deadline,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let remaining = self.deadline.remaining()?;
        self.socket.set_read_timeout(Some(remaining))?;
        self.socket.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let remaining = self.deadline.remaining()?;
        self.socket.set_write_timeout(Some(remaining))?;
        self.socket.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use p11_proto::message::Ping;
    use p11_proto::{ErrorCode, Failure, Request, Response};

    use super::*;

    #[test]
    fn an_answer_that_came_before_the_request_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p11.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let deadline = Deadline::after(Duration::from_secs(5));
        let mut connection = Connection::open(&path, deadline).unwrap();
        let (mut full_server, _) = listener.accept().unwrap();
        let busy = Response::Error(Failure::new(ErrorCode::Busy, "too many connections"));
        frame::write(&mut full_server, &busy).unwrap();
        drop(full_server);

        let ping = frame::encode(&Request::Ping(Ping {})).unwrap();
        let body = connection.exchange(&ping, deadline).unwrap();
        assert_eq!(frame::decode::<Response>(&body).unwrap(), busy);
    }
}
