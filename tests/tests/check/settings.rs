//! What the server's own check of its configuration says, and where its settings come from.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use p11_tests::{
    fixture::{KEY, PIN},
    pki::CLIENT,
    server::{Builder, Server},
    text::assert_in_order,
};

use super::device::{Device, check_as_nobody};

/// A server that the service manager starts, and that waits where its configuration cannot be used.
fn activated(device: &Device, server: Builder) -> (Server, PathBuf) {
    let socket = device.folder.path().join("activated.sock");
    let server = server.envs([("TEDGE_CONFIG_DIR", device.folder.path())]);
    (server.activate(&socket), socket)
}

#[test]
fn what_the_server_does_not_take_is_told_with_its_line() {
    for (cryptoki, words) in [
        (
            "uri = \"pkcs11:token=a b\"",
            "the character at byte 14 must be percent-encoded",
        ),
        (
            "uri = \"pkcs11:?pin-source=/nonexistent/pin\"",
            "/nonexistent/pin",
        ),
        (
            "socket_path = 7",
            "device.cryptoki.socket_path must be text",
        ),
    ] {
        let device = Device::new();
        device.set_toml("", cryptoki);
        let (_server, socket) = activated(&device, device.fixture.server().pin(PIN));
        let told = device.check_at(&socket, &[]);
        told.fails(
            "configuration",
            2,
            &[words, "systemctl reload tedge-p11-server"],
        );
    }
}

#[test]
fn a_policy_that_cannot_be_used_is_told_in_the_servers_words() {
    let device = Device::new();
    let policy = device.folder.path().join("policy.toml");
    fs::write(
        &policy,
        "[[rule]]\nusers = [\"nobody\"]\noperations = [\"sing\"]\n",
    )
    .unwrap();
    let server = device
        .fixture
        .server()
        .pin(PIN)
        .args(["--policy".as_ref(), policy.as_os_str()]);
    let (_server, socket) = activated(&device, server);
    device.check_at(&socket, &[]).fails(
        "configuration",
        2,
        &["policy.toml cannot be used: line 3, rule 1", "sing"],
    );
}

#[test]
fn a_tedge_toml_that_the_servers_account_cannot_read_is_told_with_the_command() {
    let device = Device::new();
    let server = device.fixture.server().pin(PIN).as_user(65534);
    let (_server, socket) = activated(&device, server);
    let told = || device.check_at(&socket, &[]);
    fs::set_permissions(device.folder.path(), Permissions::from_mode(0o700)).unwrap();
    told().fails(
        "configuration",
        2,
        &[
            "the folder ",
            "(root:root 0700) cannot be read by nobody",
            "chmod o+x ",
        ],
    );
    fs::set_permissions(device.folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(device.toml(), Permissions::from_mode(0o600)).unwrap();
    told().fails(
        "configuration",
        2,
        &[
            "tedge.toml (root:root 0600) cannot be read by nobody, as which the server runs",
            "chown nobody ",
        ],
    );
}

#[test]
fn what_works_and_should_not_stay_so_is_a_warning() {
    let device = Device::new();
    let before = format!("[device]\nkey_uri = \"{KEY}\"\n");
    device.set_toml(&before, "modul_path = \"/x\"");
    let server = device.in_use();
    device.check(&server, &[]).warns(
        "configuration",
        &["[device.cryptoki] has no \"modul_path\"; did you mean module_path?"],
    );

    device.set_toml(&before, &format!("pin = \"{PIN}\""));
    fs::set_permissions(device.toml(), Permissions::from_mode(0o644)).unwrap();
    device.check(&server, &[]).warns(
        "configuration",
        &["holds a PIN, and every user of this machine may read it"],
    );

    device.set_toml(&before, "socket_path = \"/other.sock\"");
    let words = [
        "device.cryptoki.socket_path is /other.sock, and the server listens on ",
        "(--socket-path)",
    ];
    device.check(&server, &[]).warns("configuration", &words);
}

#[test]
fn where_the_pin_comes_from_is_told() {
    let device = Device::new();
    let server = device.in_use();
    let told = device.check(&server, &[]);
    assert_in_order(
        &told.text,
        ["; PIN from TEDGE_DEVICE_CRYPTOKI_PIN; socket "],
    );

    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("pin"), PIN).unwrap();
    let server = device.server().without_env("TEDGE_DEVICE_CRYPTOKI_PIN");
    let server = server
        .envs([("CREDENTIALS_DIRECTORY", credentials.path())])
        .start();
    server.client().open(KEY).unwrap();
    let told = device.check(&server, &[]);
    assert_in_order(&told.text, ["; PIN from credential \"pin\"; socket "]);

    let server = device
        .server()
        .without_env("TEDGE_DEVICE_CRYPTOKI_PIN")
        .start();
    let told = device.check(&server, &[]);
    assert_in_order(
        &told.text,
        ["; no PIN is set, thin-edge's default is tried; socket "],
    );
}

#[test]
fn a_server_that_is_held_to_another_token_says_so() {
    let device = Device::new();
    let server = device.server().uri("pkcs11:token=other").start();
    device.check(&server, &[]).fails(
        "token",
        3,
        &[
            "there is no token \"other\"",
            "The server serves pkcs11:token=other only",
        ],
    );

    let (_, key) = device.fixture.add_token("third");
    device.certify(&key.spki, &["-days", "90"], CLIENT);
    let server = device.server().uri("pkcs11:token=third").start();
    server.client().open(KEY).unwrap();
    let words = "the server's own URI (pkcs11:token=third) takes the place of this in device.key_uri: token";
    device.check(&server, &[]).warns("token", &[words]);
}

#[test]
fn who_may_only_sign_is_told_what_was_not_seen() {
    let device = Device::new();
    let policy = device.folder.path().join("policy.toml");
    fs::write(
        &policy,
        "[[rule]]\nusers = [\"nobody\"]\noperations = [\"sign\"]\n",
    )
    .unwrap();
    let server = device
        .server()
        .args(["--policy".as_ref(), policy.as_os_str()])
        .start();
    fs::set_permissions(server.folder(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(server.socket(), Permissions::from_mode(0o666)).unwrap();
    let told = check_as_nobody(&device, server.socket());
    assert_eq!(told.result("token"), "not-seen", "{}", told.text);
    assert_in_order(
        &told.text,
        [
            "the policy lets you sign, not list",
            "the policy lets you list no tokens",
        ],
    );
    assert_eq!(told.code, 0);
}
