//! How the server is reached: which socket, and for how long to try.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the server listens unless its operator has chosen another place.
const DEFAULT_SOCKET: &str = "/run/tedge-p11-server/tedge-p11-server.sock";

/// How a [`Client`](crate::Client) reaches the server.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) socket_path: PathBuf,
    pub(crate) deadline: Duration,
    pub(crate) retry_for: Duration,
}

impl Config {
    /// The server that listens on this socket.
    pub fn new(socket_path: impl AsRef<Path>) -> Self {
        Config {
            socket_path: socket_path.as_ref().to_owned(),
            // Above the 30 s after which the server gives up on a token.
            deadline: Duration::from_secs(35),
            // Enough for the server to be restarted or to be started by the first connection.
            retry_for: Duration::from_secs(10),
        }
    }

    /// How long a request may take in all, 35 s by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// For how long a request is repeated while the server is not there, 10 s by default.
    #[must_use]
    pub fn retry_for(mut self, retry_for: Duration) -> Self {
        self.retry_for = retry_for;
        self
    }
}

/// The socket at `/run/tedge-p11-server/tedge-p11-server.sock`.
impl Default for Config {
    fn default() -> Self {
        Config::new(DEFAULT_SOCKET)
    }
}
