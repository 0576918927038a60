//! A folder with a place for a socket, and how clients are configured to find it.

use std::path::PathBuf;

use p11_client::{Client, Config};
use tempfile::TempDir;

/// A folder for a socket, gone with the test.
pub struct Place {
    _folder: TempDir,
    pub socket: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("p11.sock");
        Place {
            _folder: folder,
            socket,
        }
    }

    pub fn config(&self) -> Config {
        Config::new(&self.socket)
    }

    pub fn client(&self) -> Client {
        Client::new(self.config())
    }
}
