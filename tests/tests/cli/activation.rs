//! A server that systemd starts when somebody connects.

use std::{path::Path, process::Command};

use p11_client::{Client, Config};
use p11_tests::{
    process::{PATIENCE, Process},
    softhsm::SoftHsm,
    tools::command,
};

use super::with_module;

/// `systemd-socket-activate`, listening on the socket and ready to start the server.
fn activator(hsm: &SoftHsm, socket: &Path) -> (Process, tempfile::TempDir) {
    let (server, folder) = with_module(hsm).expect_socket(socket).into_command();
    let mut activate = command("systemd-socket-activate");
    activate
        .current_dir(folder.path())
        .arg("--listen")
        .arg(socket);
    // It hands on only the variables that it is told to.
    for (name, value) in server.get_envs() {
        if let Some(value) = value {
            let name = name.to_str().unwrap();
            activate.arg(format!("--setenv={name}={}", value.to_str().unwrap()));
        }
    }
    activate.arg(server.get_program()).args(server.get_args());
    let process = Process::start("systemd-socket-activate", activate);
    process.wait_for_log("Listening on", PATIENCE);
    (process, folder)
}

#[test]
fn the_first_connection_starts_it_and_is_served_and_nothing_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("passed.sock");
    let hsm = SoftHsm::new();
    let (mut server, _folder) = activator(&hsm, &socket);
    assert!(!server.log().contains("Starting tedge-p11-server"));

    let pong = Client::new(Config::new(&socket)).ping().unwrap();

    assert!(pong.server.contains("tedge-p11-server"), "{}", pong.server);
    let line = server.wait_for_log("Server listening", PATIENCE);
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

#[test]
fn a_start_that_fails_leaves_the_passed_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("passed.sock");
    let mut activate = command("systemd-socket-activate");
    activate.arg("--listen").arg(&socket);
    let server: Command = p11_tests::binary::server();
    activate
        .arg(server.get_program())
        .args(["--module-path", super::NO_MODULE]);
    let mut server = Process::start("systemd-socket-activate", activate);
    server.wait_for_log("Listening on", PATIENCE);
    drop(std::os::unix::net::UnixStream::connect(&socket).unwrap());
    assert!(!server.wait(PATIENCE).success());
    assert!(server.log().contains(super::NO_MODULE), "{}", server.log());
    assert!(socket.exists());
}
