//! A server that systemd starts when somebody connects.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::Path,
    process::Command,
};

use p11_client::{Client, Config, Error};
use p11_tests::{process::Process, server::Builder, softhsm::SoftHsm, wait::TIMEOUT};

use super::with_module;

#[test]
fn the_first_connection_starts_the_server_which_leaves_the_socket_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("passed.sock");
    let hsm = SoftHsm::new();
    let mut server = with_module(&hsm).activate(&socket);
    assert!(!server.log().contains("Starting tedge-p11-server"));

    let pong = Client::new(Config::new(&socket)).ping().unwrap();

    assert!(pong.server.contains("tedge-p11-server"), "{}", pong.server);
    let line = server.wait_for_log("Server listening");
    assert!(
        line.ends_with(&format!("listener=Some({socket:?})")),
        "{line}"
    );
    // systemd-socket-activate has become the server.
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    assert!(socket.exists(), "the socket is systemd's");
    assert!(
        !server.log().contains("tedge-p11-server.sock"),
        "no warning about a default socket that is not used: {}",
        server.log()
    );
}

/// Starts the server as systemd does, with this as the socket that it listened on.
fn pass(socket: OwnedFd, builder: Builder, user: u32) -> (Process, tempfile::TempDir) {
    let (server, folder) = builder.expect_socket("none").into_command();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ \
                  exec setpriv --reuid=$0 --regid=$0 --clear-groups \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, &user.to_string()])
        .arg(server.get_program())
        .args(server.get_args());
    for (name, value) in server.get_envs() {
        command.env(name, value.unwrap());
    }
    let process = Process::start_with_input("tedge-p11-server", command, socket.into());
    (process, folder)
}

#[test]
fn a_passed_socket_that_is_no_listening_unix_stream_is_refused() {
    let hsm = SoftHsm::new();
    let sockets: [OwnedFd; 3] = [
        UnixDatagram::unbound().unwrap().into(),
        TcpListener::bind("127.0.0.1:0").unwrap().into(),
        UnixStream::pair().unwrap().0.into(),
    ];
    for socket in sockets {
        let (mut server, _folder) = pass(socket, with_module(&hsm), 0);
        assert_eq!(server.wait(TIMEOUT).code(), Some(1), "{}", server.log());
        let said = "the socket passed by the service manager cannot be used";
        assert!(server.log().contains(said), "{}", server.log());
    }
}

#[test]
fn clients_see_the_user_of_the_server_and_not_of_who_made_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("passed.sock");
    let listener = UnixListener::bind(path).unwrap();
    let hsm = SoftHsm::new();
    let (_server, _folder) = pass(listener.into(), with_module(&hsm), 4711);
    let client = |uid| Client::new(Config::new(path).server_uid(uid));
    client(4711).ping().unwrap();
    let refused = client(0).ping().unwrap_err();
    assert!(matches!(refused, Error::WrongServer { .. }), "{refused}");
}
