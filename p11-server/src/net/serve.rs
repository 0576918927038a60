//! The accept loop: every connection gets a place and a thread of its own.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{debug, error, warn};

use super::exchange;
use super::listen::Socket;
use super::peer::Peer;
use super::places::{Limits, Places, Visitor};
use super::watch::Connection;
use crate::audit::Audit;
use crate::policy::Policy;
use crate::service::Service;

/// The pause after the system could not give us another connection.
const SHORTAGE: Duration = Duration::from_millis(100);

/// The accept loop looks up this often, so that it can be seen to move.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// A socket that is served.
pub struct Server {
    socket: Socket,
    service: Arc<dyn Service>,
    policy: RwLock<Arc<Policy>>,
    audit: Audit,
    places: Arc<Places>,
    beats: AtomicU64,
}

impl Server {
    /// A server that does not accept yet.
    pub fn new(
        socket: Socket,
        service: Arc<dyn Service>,
        policy: Policy,
        limits: Limits,
    ) -> Arc<Server> {
        Arc::new(Server {
            socket,
            service,
            policy: RwLock::new(Arc::new(policy)),
            audit: Audit::default(),
            places: Places::new(limits),
            beats: AtomicU64::new(0),
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
            self.beats.fetch_add(1, Ordering::Relaxed);
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
                    self.welcome(stream);
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
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// How many connections are served.
    pub fn connections(&self) -> usize {
        self.places.count()
    }

    /// Answers for the operations that are overdue.
    pub fn close_overdue(&self) {
        self.places.close_overdue();
    }

    /// After accepting has stopped: closes what is idle and gives running requests some time.
    pub fn drain(&self, grace: Duration) -> usize {
        self.places.drain(grace)
    }

    /// From the next request on, another policy holds.
    pub fn set_policy(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    /// The policy that holds at this moment.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Where requests are noted that were answered.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// What requests are handed to.
    pub fn service(&self) -> &dyn Service {
        self.service.as_ref()
    }

    /// Whether the socket was passed by the service manager.
    pub fn is_inherited(&self) -> bool {
        self.socket.is_inherited()
    }

    /// Removes the socket from the file system, if we made it.
    pub fn remove_socket(&self) {
        self.socket.remove();
    }

    /// Serves one connection from its beginning to its end, in this thread.
    pub fn attend(&self, stream: UnixStream) {
        if let Some(visitor) = self.let_in(stream) {
            self.serve(visitor);
        }
    }

    fn welcome(self: &Arc<Self>, stream: UnixStream) {
        let Some(visitor) = self.let_in(stream) else {
            return;
        };
        let server = self.clone();
        let thread = thread::Builder::new().name("connection".into());
        if let Err(error) = thread.spawn(move || server.serve(visitor)) {
            warn!("no thread for a connection, which is closed: {error}");
        }
    }

    fn let_in(&self, stream: UnixStream) -> Option<Visitor> {
        match Peer::of(&stream) {
            Ok(peer) => {
                let connection = Arc::new(Connection::new(stream, peer));
                let visitor = self.places.enter(connection.clone());
                if visitor.is_none() {
                    refuse(&connection);
                }
                visitor
            }
            Err(error) => {
                debug!("a connection was gone at once: {error}");
                None
            }
        }
    }

    /// A panic in here ends the connection and frees its place.
    fn serve(&self, mut visitor: Visitor) {
        if !visitor.wait() {
            return refuse(&visitor.connection);
        }
        let connection = &visitor.connection;
        if let Err(error) = exchange::serve(self, connection, self.places.patience()) {
            debug!(peer = %connection.peer, "a connection ended: {error}");
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

fn refuse(connection: &Connection) {
    warn!(peer = %connection.peer, "all places are at work; a connection is refused");
    exchange::refuse(connection);
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
