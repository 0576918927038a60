//! Peer credentials of a UNIX socket (SO_PEERCRED).

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// The process at the other end when it connected (unix(7), `SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its process id, in our namespace; 0 where it has none there.
    pub pid: i32,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// What it said.
    pub fn of(stream: &UnixStream) -> io::Result<Peer> {
        let found = getsockopt(stream, PeerCredentials)?;
        Ok(Peer {
            uid: found.uid(),
            gid: found.gid(),
            pid: found.pid(),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid={} gid={} pid={}", self.uid, self.gid, self.pid)
    }
}
