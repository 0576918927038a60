//! Which socket the server is expected at.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use p11_client::Config;

use crate::output::say;

/// Where a server listens that was started by hand, in its folder.
const BESIDE: &str = "./tedge-p11-server.sock";

/// The first that is there: what was `told` (by flag, variable or tedge.toml), the service's, that of a server which was
/// started in this folder.
pub fn choose(told: Option<PathBuf>) -> PathBuf {
    if let Some(told) = told {
        return told;
    }
    let of_service = PathBuf::from(Config::DEFAULT_SOCKET);
    match fs::symlink_metadata(&of_service) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        _ => return of_service,
    }
    // In a folder where others may write, anybody can wait for PINs.
    match fs::metadata(BESIDE) {
        Ok(beside) if beside.uid() == Uid::effective().as_raw() => {
            say(format_args!(
                "Using the socket {BESIDE}, which is yours, since there is no {}.",
                Config::DEFAULT_SOCKET
            ));
            PathBuf::from(BESIDE)
        }
        Ok(beside) => {
            say(format_args!(
                "Not using the socket {BESIDE}: it belongs to uid {}. If you trust that user: --socket-path {BESIDE}",
                beside.uid()
            ));
            of_service
        }
        Err(_) => of_service,
    }
}

/// How a socket is connected to. On one beside, that nobody has told, the user alone may listen: its file may be another one
/// by the time of the connection.
pub fn config(path: &Path, is_told: bool) -> Config {
    match !is_told && path == Path::new(BESIDE) {
        true => Config::new(path).server_uid(Uid::effective().as_raw()),
        false => Config::new(path),
    }
}
