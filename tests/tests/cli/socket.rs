//! The socket that the server makes for itself: made, taken over, removed.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::stat::{Mode, umask};
use p11_client::{Client, Config};
use p11_tests::{
    server::{Builder, Server},
    softhsm::SoftHsm,
    wait::TIMEOUT,
};

use super::{NO_MODULE, fails_to_start, with_module};

fn answers(socket: &Path) -> bool {
    Client::new(Config::new(socket)).ping().is_ok()
}

/// A server whose socket is in a folder that outlives it.
fn server_at(hsm: &SoftHsm, socket: &Path) -> Builder {
    with_module(hsm)
        .args(["--socket-path".as_ref(), socket.as_os_str()])
        .expect_socket(socket)
}

#[test]
fn the_folder_is_made_and_the_socket_is_for_owner_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/deep/p11.sock");
    let hsm = SoftHsm::new();
    let _server = server_at(&hsm, &socket).start();
    let metadata = fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert!(answers(&socket));
}

#[test]
fn sigterm_stops_the_server_beside_a_silent_client() {
    let hsm = SoftHsm::new();
    let mut server = with_module(&hsm).start();
    let _silent = UnixStream::connect(server.socket()).unwrap();
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    assert!(!server.socket().exists());
}

#[test]
fn the_socket_is_removed_when_the_start_fails_later() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    let builder = Server::builder()
        .module(NO_MODULE.as_ref())
        .args(["--socket-path".as_ref(), socket.as_os_str()])
        .expect_socket(&socket);
    let said = fails_to_start(builder);
    assert!(said.contains("Server listening"), "{said}");
    assert!(!socket.exists());
}

#[test]
fn the_socket_of_a_killed_server_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    let hsm = SoftHsm::new();
    let killed = server_at(&hsm, &socket).start();
    drop(killed);
    assert!(socket.exists(), "kill -9 leaves the file");
    assert!(UnixStream::connect(&socket).is_err());
    let _server = server_at(&hsm, &socket).start();
    assert!(answers(&socket));
}

#[test]
fn what_was_put_in_the_place_of_its_socket_is_left_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    let hsm = SoftHsm::new();
    let mut server = server_at(&hsm, &socket).start();
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "somebody else's").unwrap();
    assert!(server.terminate().success());
    assert_eq!(fs::read_to_string(&socket).unwrap(), "somebody else's");
}

#[test]
fn a_second_server_refuses_to_start_and_leaves_the_first_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    let hsm = SoftHsm::new();
    let _first = server_at(&hsm, &socket).start();
    let said = fails_to_start(server_at(&hsm, &socket));
    assert!(said.contains(socket.to_str().unwrap()), "{said}");
    assert!(said.contains("already"), "{said}");
    assert!(answers(&socket));
}

/// The files beside the socket: the lock file, under whatever name.
fn others(folder: &Path, socket: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    paths.filter(|path| path != socket).collect()
}

#[test]
fn a_server_refuses_to_start_while_another_starts() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    let hsm = SoftHsm::new();
    drop(server_at(&hsm, &socket).start());
    // Two that start at once could both find this socket stale: one has the lock, here the test.
    let [lock] = &others(folder.path(), &socket)[..] else {
        panic!("no lock file");
    };
    let lock = File::open(lock).unwrap();
    lock.lock().unwrap();
    let said = fails_to_start(server_at(&hsm, &socket));
    assert!(said.contains("already"), "{said}");
    lock.unlock().unwrap();
    let _server = server_at(&hsm, &socket).start();
    assert!(answers(&socket));
}

#[test]
fn a_live_server_is_found_by_a_ping_where_the_lock_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    let hsm = SoftHsm::new();
    let _first = server_at(&hsm, &socket).start();
    for file in others(folder.path(), &socket) {
        fs::remove_file(file).unwrap();
    }
    let said = fails_to_start(server_at(&hsm, &socket));
    assert!(said.contains("already"), "{said}");
    assert!(answers(&socket));
}

#[test]
fn a_file_that_is_not_a_socket_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    fs::write(&socket, "precious").unwrap();
    let said = fails_to_start(server_at(&SoftHsm::new(), &socket));
    assert!(said.contains(socket.to_str().unwrap()), "{said}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn a_socket_that_cannot_be_made_is_an_error_with_path_and_cause() {
    let builder = server_at(&SoftHsm::new(), Path::new("/proc/none/p11.sock"));
    let said = fails_to_start(builder);
    assert!(said.contains("/proc/none"), "{said}");
    assert!(said.contains("No such file"), "{said}");
}

/// A server that was started under this mask.
fn with_mask(hsm: &SoftHsm, mask: u32, socket: &str) -> Server {
    let builder = with_module(hsm).expect_socket(socket);
    let builder = builder.args(["--socket-path", socket]);
    let before = umask(Mode::from_bits_truncate(mask));
    let server = builder.spawn();
    umask(before);
    server.wait_for_log("Server listening");
    server
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn modes_are_the_same_whatever_the_mask_is() {
    let hsm = SoftHsm::new();
    for mask in [0, 0o022, 0o077] {
        let server = with_mask(&hsm, mask, "new/folder/p11.sock");
        let folder = server.folder().join("new");
        assert_eq!(mode(&folder), 0o755, "{mask:o}");
        assert_eq!(mode(&folder.join("folder")), 0o755, "{mask:o}");
        assert_eq!(mode(server.socket()), 0o660, "{mask:o}");
        let lock = server.socket().with_extension("sock.lock");
        assert_eq!(mode(&lock), 0o600, "{mask:o}");
    }
}

#[test]
fn a_lock_that_is_a_link_is_not_followed() {
    let hsm = SoftHsm::new();
    let builder = with_module(&hsm).expect_socket("p11.sock");
    let target = builder.folder().join("target");
    symlink(&target, builder.folder().join("p11.sock.lock")).unwrap();
    let mut server = builder.args(["--socket-path", "p11.sock"]).spawn();
    assert_eq!(server.wait(TIMEOUT).code(), Some(1));
    assert!(!target.exists());
    assert!(server.log().contains("cannot lock"), "{}", server.log());
}

#[test]
fn a_live_socket_that_takes_no_more_connections_does_not_hold_up_the_start() {
    let hsm = SoftHsm::new();
    let builder = with_module(&hsm).expect_socket("p11.sock");
    let socket = builder.folder().join("p11.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
    let _waiting = [(); 2].map(|()| UnixStream::connect(&socket).unwrap());
    let mut server = builder.args(["--socket-path", "p11.sock"]).spawn();
    assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(1));
    assert!(
        server.log().contains("another server is already listening"),
        "{}",
        server.log()
    );
    assert!(socket.exists());
}
