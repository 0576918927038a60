//! The accept loop: every connection gets a place and a thread.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{debug, error, warn};

use super::connection::Connection;
use super::handler::Handler;
use super::limits::{ConnectionLimits, Limiter, NO_PLACE, Permit};
use super::listen::Socket;
use super::threads::{self, Threads};
use crate::daemon::peer::Peer;

/// The pause after the system could not give us another connection.
const SHORTAGE: Duration = Duration::from_millis(100);

/// The accept loop looks up this often, so that it can be seen to move.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Threads beside those of connections that are served or wait for it.
const SPARE_THREADS: usize = 64;

/// A socket that is served.
pub(crate) struct Server {
    socket: Arc<Socket>,
    handler: Handler,
    limiter: Arc<Limiter>,
    threads: Arc<Threads>,
    heartbeat: AtomicU64,
}

impl Server {
    /// A server that does not accept yet.
    pub fn new(
        socket: impl Into<Arc<Socket>>,
        handler: Handler,
        limits: ConnectionLimits,
    ) -> Arc<Server> {
        Arc::new(Server {
            socket: socket.into(),
            handler,
            limiter: Limiter::new(limits),
            // Those that are served, as many that wait, and some whose connection was closed just now.
            threads: Threads::new(
                2 * limits.all + limits.reserve + SPARE_THREADS,
                threads::IDLE,
            ),
            heartbeat: AtomicU64::new(0),
        })
    }

    /// Accepts until `stop` becomes readable.
    ///
    /// # Errors
    /// What makes it impossible to go on.
    pub fn accept(self: &Arc<Self>, stop: &UnixStream) -> io::Result<()> {
        let listener = self.socket.listener();
        listener.set_nonblocking(true)?;
        let timeout = PollTimeout::try_from(HEARTBEAT).unwrap_or(PollTimeout::NONE);
        let mut short = false;
        loop {
            self.heartbeat.fetch_add(1, Ordering::Relaxed);
            let mut ready =
                [listener.as_fd(), stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut ready, timeout) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let [at_socket, at_stop] =
                ready.map(|fd| fd.revents().unwrap_or_else(PollFlags::empty));
            if !at_stop.is_empty() {
                return Ok(());
            }
            // Where the socket was shut down, accept(2) would say that there is nobody, for ever.
            if at_socket.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                return Err(io::Error::other("the socket takes no connections any more"));
            }
            if at_socket.is_empty() {
                continue;
            }
            match listener.accept() {
                Ok((stream, _)) => {
                    short = false;
                    self.spawn_handler(stream);
                }
                Err(error) if is_shortage(&error) => {
                    if !short {
                        error!("cannot accept a connection now: {error}");
                    }
                    short = true;
                    thread::sleep(SHORTAGE);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A number that goes up while the accept loop moves.
    pub fn heartbeat(&self) -> u64 {
        self.heartbeat.load(Ordering::Relaxed)
    }

    /// How many connections are served.
    #[cfg(test)]
    pub fn connections(&self) -> usize {
        self.limiter.count()
    }

    /// Answers for the operations that are overdue, and writes what was counted for the log.
    pub fn close_overdue(&self) {
        self.limiter.close_overdue();
        self.handler.sum_up();
    }

    /// After accepting has stopped: closes what is idle and gives running requests some time. Answers
    /// how many are left.
    pub fn drain(&self, grace: Duration) -> usize {
        self.limiter.drain(grace)
    }

    /// What answers the requests.
    pub fn handler(&self) -> &Handler {
        &self.handler
    }

    /// Whether the socket was passed by the service manager.
    pub fn is_inherited(&self) -> bool {
        self.socket.is_inherited()
    }

    fn spawn_handler(self: &Arc<Self>, stream: UnixStream) {
        let Some(permit) = self.admit(stream) else {
            return;
        };
        let (server, connection) = (self.clone(), permit.connection.clone());
        if let Err(error) = self.threads.run(move || server.serve(permit)) {
            warn!("no thread for a connection, which is refused: {error}");
            self.handler.refuse(&connection, NO_PLACE);
        }
    }

    fn admit(&self, stream: UnixStream) -> Option<Permit> {
        match Peer::of(&stream) {
            Ok(peer) => {
                let connection = Arc::new(Connection::new(stream, peer));
                connection.limit_untaken();
                let admitted = self.limiter.admit(connection.clone());
                admitted
                    .map_err(|why| self.handler.refuse(&connection, why))
                    .ok()
            }
            Err(error) => {
                debug!("a connection was gone at once: {error}");
                None
            }
        }
    }

    /// A panic in here ends the connection and frees its place.
    fn serve(&self, mut permit: Permit) {
        let connection = permit.connection.clone();
        let timeouts = self.limiter.timeouts();
        let ended = self
            .handler
            .handle_connection(&connection, timeouts, Some(&mut permit));
        if let Err(error) = ended {
            debug!(peer = %connection.peer, "a connection ended: {error}");
        }
        if !connection.is_taken() {
            self.limiter.count_untaken(connection.peer.uid);
        }
    }
}

/// The system has no room for another connection at this moment (accept(2)).
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    shortages.iter().any(|shortage| is(error, *shortage))
}

/// The connection is gone already, or the wait for one was interrupted.
fn is_of_one_connection(error: &io::Error) -> bool {
    let harmless = [Errno::EAGAIN, Errno::EINTR, Errno::ECONNABORTED];
    harmless.iter().any(|harmless| is(error, *harmless))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither can be brought about from outside: a UNIX socket does not abort connections, and our
    /// signals are read from a descriptor.
    #[test]
    fn what_is_over_in_a_moment_does_not_end_the_accept_loop() {
        for errno in [Errno::EINTR, Errno::ECONNABORTED, Errno::EAGAIN] {
            assert!(is_of_one_connection(&errno.into()), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            assert!(is_shortage(&errno.into()), "{errno}");
        }
        for errno in [Errno::EBADF, Errno::EINVAL] {
            let error = errno.into();
            assert!(!is_of_one_connection(&error) && !is_shortage(&error));
        }
    }
}
