//! Configuration of a client: the socket, the protocol and the deadlines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use p11_proto::Pin;

/// A signature that takes longer is told in the log.
pub(crate) const SLOW_SIGNATURE: Duration = Duration::from_secs(1);

/// How a [`Client`](crate::Client) reaches the server.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) socket_path: PathBuf,
    #[cfg(feature = "tedge1")]
    pub(crate) protocol: Protocol,
    pub(crate) pin: Option<Pin>,
    pub(crate) slow_signature: Duration,
    pub(crate) deadline: Duration,
    pub(crate) long_deadline: Duration,
    pub(crate) retry_for: Duration,
    pub(crate) busy_for: Duration,
    pub(crate) server_uid: Option<u32>,
}

/// The protocol that a client speaks with the server.
#[cfg(feature = "tedge1")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// The client finds out by one short connection before the first request, and again after a
    /// request has failed, since another version of the server may run by then.
    #[default]
    Auto,
    /// Protocol 1 of this project.
    V1,
    /// tedge1, the protocol of `tedge-p11-server` 1.7 to 2.0, which can do less.
    Tedge1,
}

impl Config {
    /// Where the server's systemd unit listens.
    pub const DEFAULT_SOCKET: &str = "/run/tedge-p11-server/tedge-p11-server.sock";

    /// The server that listens on this socket.
    pub fn new(socket_path: impl AsRef<Path>) -> Self {
        Config {
            socket_path: socket_path.as_ref().to_owned(),
            #[cfg(feature = "tedge1")]
            protocol: Protocol::default(),
            pin: None,
            slow_signature: SLOW_SIGNATURE,
            // 5 s more than the server allows for a request.
            deadline: Duration::from_secs(35),
            long_deadline: Duration::from_secs(605),
            // Enough for a restart of the server.
            retry_for: Duration::from_secs(10),
            busy_for: Duration::MAX,
            server_uid: None,
        }
    }

    /// The protocol to speak, [`Protocol::Auto`] by default.
    #[cfg(feature = "tedge1")]
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// The PIN of the token, for every request that brings none and has a place for one; none by default, so that the
    /// server uses its own. `InitToken` and `ChangePin` bring their own PINs always.
    #[must_use]
    pub fn pin(mut self, pin: impl Into<Option<Pin>>) -> Self {
        self.pin = pin.into();
        self
    }

    /// From how long a signature is logged as slow, with its duration, as a warning: 1 s by default.
    #[must_use]
    pub fn slow_signature(mut self, threshold: Duration) -> Self {
        self.slow_signature = threshold;
        self
    }

    /// How long a request may take in all, 35 s by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long it may take to create a key or to initialise a token, 10 min and 5 s by default.
    #[must_use]
    pub fn long_deadline(mut self, deadline: Duration) -> Self {
        self.long_deadline = deadline;
        self
    }

    /// For how long a request is repeated while the server is not there, 10 s by default.
    ///
    /// A request that changes a token is repeated only as long as it cannot have reached the server.
    #[must_use]
    pub fn retry_for(mut self, retry_for: Duration) -> Self {
        self.retry_for = retry_for;
        self
    }

    /// For how long a request is repeated while server or token has too much to do (`Busy`), until its deadline by default.
    ///
    /// A request that changes a token is not repeated.
    #[must_use]
    pub fn busy_for(mut self, busy_for: Duration) -> Self {
        self.busy_for = busy_for;
        self
    }
}

impl Config {
    /// The only user who may be at the other end of the socket, anybody by default: nothing is sent to others.
    ///
    /// It is the user who has called listen(2) (unix(7), `SO_PEERCRED`): that of the server, under socket activation
    /// as well, once it runs. Until then it is the service manager's, and the request is repeated.
    #[must_use]
    pub fn server_uid(mut self, uid: u32) -> Self {
        self.server_uid = Some(uid);
        self
    }
}

/// The socket at `/run/tedge-p11-server/tedge-p11-server.sock`.
impl Default for Config {
    fn default() -> Self {
        Config::new(Config::DEFAULT_SOCKET)
    }
}
