//! Why nobody can be reached at the path of a socket, as far as its file tells.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;

use crate::error::Error;

/// What a failed connect(2) means.
pub(crate) fn connect_error(path: &Path, source: io::Error) -> Error {
    let not_a_socket = |path: &Path, found: &str| Error::NotASocket {
        path: path.to_owned(),
        found: found.to_owned(),
    };
    match source.kind() {
        io::ErrorKind::NotFound => Error::NoSocket(path.to_owned()),
        io::ErrorKind::PermissionDenied => Error::PermissionDenied(path.to_owned()),
        io::ErrorKind::NotADirectory => {
            let mut above = path.ancestors().skip(1);
            let file = above.find(|above| above.metadata().is_ok());
            not_a_socket(file.unwrap_or(path), "a file and no folder")
        }
        io::ErrorKind::ConnectionRefused => match fs::metadata(path) {
            Ok(file) if !file.file_type().is_socket() => not_a_socket(path, name(file.file_type())),
            // Nobody will ever listen on a file that has no name any more.
            Ok(file) if file.nlink() == 0 => Error::StaleMount(path.to_owned()),
            _ => Error::Refused(path.to_owned()),
        },
        _ if source.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => {
            not_a_socket(path, "a socket of another kind, of another program")
        }
        _ => Error::Socket {
            path: path.to_owned(),
            source,
        },
    }
}

fn name(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "a folder"
    } else if file_type.is_file() {
        "a plain file"
    } else if file_type.is_fifo() {
        "a pipe"
    } else {
        "a device"
    }
}
