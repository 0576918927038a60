//! What is told, and how soon, where no socket of a server is at the path.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use p11_client::{Client, Config, Error, ErrorCode, Protocol};

use crate::assertions::assert_error;
use crate::fake_server::TempSocket;
use crate::requests::sign;
use crate::test_key::failure;

/// Not after the ten seconds for which a server that is not there is looked for.
const AT_ONCE: Duration = Duration::from_secs(5);

fn refused_at_once(path: &Path) -> Error {
    let start = Instant::now();
    let error = Client::new(Config::new(path)).ping().unwrap_err();
    assert!(start.elapsed() < AT_ONCE, "{error}");
    error
}

#[test]
fn what_is_no_socket_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    File::create(&file).unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let datagrams = folder.path().join("datagrams");
    let _other = UnixDatagram::bind(&datagrams).unwrap();
    for (path, named, found) in [
        (folder.path().to_owned(), folder.path(), "is a folder"),
        (file.clone(), &file, "is a plain file"),
        (pipe.clone(), &pipe, "is a pipe"),
        (datagrams.clone(), &datagrams, "is a socket of another kind"),
        (file.join("p11.sock"), &file, "is a file and no folder"),
    ] {
        let parts = [found, named.to_str().unwrap()];
        assert_error(&refused_at_once(&path), "NotASocket", &parts);
    }
}

#[test]
fn a_socket_file_that_only_a_mount_shows_still_is_told_at_once() {
    let socket = TempSocket::new();
    let listener = socket.bind();
    let path_only = nix::fcntl::OFlag::O_PATH.bits();
    let mut options = File::options();
    let options = options.read(true).custom_flags(path_only);
    let opened = options.open(&socket.path).unwrap();
    // As a bind mount does, this leads to the file after the server has deleted it and made another.
    let shown = format!("/proc/self/fd/{}", opened.as_raw_fd());
    drop(listener);
    fs::remove_file(&socket.path).unwrap();
    let _new_server = socket.bind();
    let error = refused_at_once(shown.as_ref());
    assert_error(&error, "StaleMount", &["mount the socket's folder"]);
}

#[test]
fn another_programs_socket_is_told_soon() {
    for answer in ["", "HTTP/1.1 400 Bad Request"] {
        let socket = TempSocket::new();
        let _other_program = socket.serve_raw(|mut stream| {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(answer.as_bytes());
        });
        let error = refused_at_once(&socket.path);
        let code = if answer.is_empty() {
            "ConnectionLost"
        } else {
            "Protocol"
        };
        let parts = ["is it the right socket", socket.path.to_str().unwrap()];
        assert_error(&error, code, &parts);
    }
}

#[test]
fn a_server_that_is_too_old_or_too_new_is_told_from_one_that_fails() {
    for (code, told, part) in [
        (ErrorCode::Unsupported, "TooOld", "cannot answer Sign"),
        (
            ErrorCode::UnsupportedVersion,
            "TooNew",
            "update the program that uses p11-client",
        ),
    ] {
        let socket = TempSocket::new();
        let _server = socket.serve(move |_| failure(code, "no"));
        let client = Client::new(socket.config().protocol(Protocol::V1));
        assert_error(&client.sign(sign()).unwrap_err(), told, &[part]);
    }
}
