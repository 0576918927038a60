//! This process: as which user it runs, since when, and how many connections it has taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::unistd::{User, geteuid};
use p11_proto::message::Account;

/// What `Status` tells of the process to everybody, and its count of connections.
pub(super) struct Process {
    start: Instant,
    account: Account,
    connections: AtomicU64,
}

impl Process {
    /// This one, from now on.
    pub fn new() -> Process {
        let uid = geteuid();
        let user = User::from_uid(uid).ok().flatten();
        Process {
            start: Instant::now(),
            account: Account::new(uid.as_raw()).user(user.map(|user| user.name)),
            connections: AtomicU64::new(0),
        }
    }

    /// A connection was taken.
    pub fn add_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// For how many seconds it has run.
    pub fn uptime(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    /// As which user it runs.
    pub fn account(&self) -> &Account {
        &self.account
    }
}
