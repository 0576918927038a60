//! How the server is reached: which socket, and for how long it is waited for.

use std::{
    fs,
    os::unix::{
        fs::{chown, symlink},
        net::UnixListener,
    },
    thread,
    time::Duration,
};

use p11_tests::{
    fixture::{Fixture, PIN},
    server::Server,
    softhsm::SoftHsm,
};

use super::{CommandLine, Ended, json, tedge_p11, without_terminal};

/// `status` in this folder, with nothing configured but that.
fn status_in(folder: &std::path::Path, arguments: &[&str]) -> Ended {
    let mut command = without_terminal();
    command
        .arg("status")
        .args(arguments)
        .current_dir(folder)
        .env("TEDGE_CONFIG_DIR", folder);
    CommandLine(command).run()
}

#[test]
fn a_server_that_is_away_is_waited_for_and_that_is_said() {
    let hsm = SoftHsm::new();
    let builder = Server::builder().softhsm(&hsm).pin(PIN);
    let socket = builder.folder().join("late.sock");
    let path = socket.clone();
    let folder = tempfile::tempdir().unwrap();
    let ended = thread::scope(|scope| {
        let command = scope.spawn(|| {
            let mut command = without_terminal();
            command
                .args(["status", "--wait", "60", "--socket-path"])
                .arg(&path);
            command.env("TEDGE_CONFIG_DIR", folder.path());
            CommandLine(command).run()
        });
        thread::sleep(Duration::from_millis(500));
        let server = builder
            .args(["--socket-path".as_ref(), socket.as_os_str()])
            .expect_socket(&socket)
            .start();
        let ended = command.join().unwrap();
        drop(server);
        ended
    });
    assert!(ended.done().starts_with("ok: "), "{ended:?}");
    let said = format!("waiting for the server at {}, 60 s ...\n", socket.display());
    assert!(ended.stderr.starts_with(&said), "{ended:?}");
}

#[test]
fn a_server_that_is_not_there_is_exit_code_5_with_the_next_command() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.sock");
    let none = none.to_str().unwrap();
    let ended = status_in(folder.path(), &["--socket-path", none, "--wait", "0"]);
    ended.refused(
        5,
        &[
            "there is no socket",
            "  systemctl status tedge-p11-server.socket",
        ],
    );
    drop(UnixListener::bind(none).unwrap());
    status_in(folder.path(), &["--socket-path", none, "--wait", "0"])
        .refused(5, &["nobody listens"]);
    let text = folder.path().join("text");
    fs::write(&text, "").unwrap();
    let ended = status_in(
        folder.path(),
        &["--socket-path", text.to_str().unwrap(), "--json"],
    );
    assert_eq!(ended.code, 5);
    let answer = serde_json::from_str(&ended.stdout).unwrap();
    super::schema::check("status", &answer);
    assert_eq!(answer["error"]["code"], "NotASocket");
}

#[test]
fn a_socket_beside_is_used_if_it_is_the_users_own() {
    let (_fixture, server) = Fixture::started();
    let folder = tempfile::tempdir().unwrap();
    let beside = folder.path().join("tedge-p11-server.sock");
    symlink(server.socket(), &beside).unwrap();
    let ended = status_in(folder.path(), &[]);
    assert!(ended.done().starts_with("ok: "), "{ended:?}");
    ended.says(&["Using the socket ./tedge-p11-server.sock, which is yours"]);

    // Somebody else may wait there for PINs.
    chown(server.socket(), Some(54321), None).unwrap();
    let ended = status_in(folder.path(), &["--wait", "0"]);
    ended.refused(
        5,
        &["Not using the socket ./tedge-p11-server.sock: it belongs to uid 54321"],
    );
    status_in(folder.path(), &["--socket-path", "./tedge-p11-server.sock"]).done();
}

#[test]
fn at_a_socket_beside_nobody_else_may_listen() {
    let hsm = SoftHsm::new();
    let server = Server::builder().softhsm(&hsm).as_user(54321).start();
    // As if the file had been another one a moment ago.
    chown(server.socket(), Some(0), None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    symlink(server.socket(), folder.path().join("tedge-p11-server.sock")).unwrap();
    status_in(folder.path(), &["--wait", "0"]).refused(5, &["is uid 54321 and not 0"]);
    let told = status_in(folder.path(), &["--socket-path", "./tedge-p11-server.sock"]);
    assert!(told.stdout.contains("tedge-p11-server 0.1.0"), "{told:?}");
}

#[test]
fn the_socket_of_tedge_toml_is_used_where_no_flag_or_variable_names_one() {
    let (_fixture, server) = Fixture::started();
    let folder = tempfile::tempdir().unwrap();
    let toml = format!(
        "[device.cryptoki]\nsocket_path = \"{}\"\n",
        server.socket().display()
    );
    fs::write(folder.path().join("tedge.toml"), toml).unwrap();
    let ended = status_in(folder.path(), &[]);
    assert!(ended.done().starts_with("ok: "), "{ended:?}");
    assert_eq!(ended.stderr, "");
    status_in(folder.path(), &["--socket-path", "/none", "--wait", "0"]).refused(5, &["\"/none\""]);
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    let (_fixture, server) = Fixture::started();
    assert!(!tedge_p11(&server, &["status"]).stdout.contains('\x1b'));
    let (code, _) = json(&server, &["sign", "--test", "none"]);
    assert_eq!(code, 3);
}
