//! Sockets that nobody listens on, servers that are none, and servers without their module.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixListener,
    },
    path::Path,
    process::Command,
    thread,
};

use p11_fault_module::{
    Function::{C_Initialize, C_Sign},
    cryptoki_sys::CKR_GENERAL_ERROR,
    on,
};
use p11_tests::{
    fixture::{KEY, PIN},
    old_server::OldServer,
    server::Server,
    text::assert_in_order,
    tools::pkcs11_module,
    wait::wait_until,
};

use super::device::{Device, check, check_as_nobody};

#[test]
fn a_path_where_nobody_listens_is_told_by_what_is_there() {
    let device = Device::new();
    let folder = device.folder.path();
    let at = |name: &str, words: &[&str]| {
        device
            .check_at(&folder.join(name), &[])
            .fails("socket", 5, words);
    };
    at(
        "none.sock",
        &[
            "there is no socket",
            "none.sock",
            "do this:",
            "tedge-p11-server --module-path",
        ],
    );
    fs::write(folder.join("file"), "").unwrap();
    at("file", &["is a plain file"]);
    fs::create_dir(folder.join("folder")).unwrap();
    at("folder", &["is a folder"]);
    at("file/below.sock", &["a file and no folder"]);
    drop(UnixListener::bind(folder.join("stale.sock")).unwrap());
    at("stale.sock", &["nobody listens on", "stale.sock"]);
}

#[test]
fn who_may_not_connect_is_told_which_group_to_join() {
    let device = Device::new();
    let server = device.in_use();
    let told = |words: &[&str]| check_as_nobody(&device, server.socket()).fails("socket", 7, words);
    fs::set_permissions(server.folder(), Permissions::from_mode(0o755)).unwrap();
    chown(server.socket(), None, Some(7)).unwrap();
    told(&[
        "no permission",
        "join its group \"lp\"",
        "usermod --append --groups lp nobody",
    ]);
    fs::set_permissions(server.socket(), Permissions::from_mode(0o600)).unwrap();
    told(&["no permission", "only its owner \"root\" may use it"]);
    fs::set_permissions(server.folder(), Permissions::from_mode(0o700)).unwrap();
    told(&["no permission", "its folder", "is closed to this user"]);
}

#[test]
fn what_is_not_for_this_user_to_read_is_not_seen() {
    let device = Device::new();
    let server = device.in_use();
    fs::set_permissions(server.folder(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(server.socket(), Permissions::from_mode(0o666)).unwrap();
    let told = check_as_nobody(&device, server.socket());
    assert_eq!(told.result("configuration"), "not-seen", "{}", told.text);
    assert_in_order(&told.text, ["is not for you to read: run as root for more"]);
    assert_eq!(told.code, 0, "{}", told.text);
}

/// Whoever listens instead of the server.
fn impostor(folder: &Path, answer: &'static [u8]) -> std::path::PathBuf {
    let socket = folder.join("other.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut asked = [0; 64];
            let _ = connection.read(&mut asked);
            let _ = connection.write_all(answer);
        }
    });
    socket
}

#[test]
fn what_is_no_server_of_ours_is_told() {
    let device = Device::new();
    let http = impostor(
        device.folder.path(),
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    );
    device.check_at(&http, &[]).fails(
        "server",
        5,
        &["does not speak a protocol of tedge-p11-server"],
    );
    let device = Device::new();
    let silent = impostor(device.folder.path(), b"");
    device
        .check_at(&silent, &[])
        .fails("server", 5, &["closed the connection without an answer"]);
    let device = Device::new();
    let hanging = device.folder.path().join("hangs.sock");
    let _listener = UnixListener::bind(&hanging).unwrap();
    device
        .check_at(&hanging, &[])
        .fails("server", 5, &["did not answer within 5s"]);
}

#[test]
fn an_old_server_is_told_by_what_it_cannot_tell() {
    let device = Device::new();
    let server = device.in_use();
    let old = OldServer::before(&server);
    let told = device.check_at(old.socket(), &[]);
    assert_in_order(
        &told.text,
        ["server ", "an old tedge-p11-server", "signing works"],
    );
    assert_eq!(told.result("token"), "not-seen", "{}", told.text);
    assert_eq!(told.code, 0, "{}", told.text);
    let told = device.check_at(old.socket(), &["--login"]);
    assert_eq!(told.result("signature"), "ok", "{}", told.text);
}

#[test]
fn a_module_that_does_not_start_is_told_in_the_servers_words() {
    let device = Device::new();
    device
        .fixture
        .faults
        .set([on(C_Initialize).returns(CKR_GENERAL_ERROR)]);
    let server = device.server().start();
    device.check(&server, &[]).fails(
        "module",
        6,
        &[
            "C_Initialize returned CKR_GENERAL_ERROR",
            "do this:",
            "journalctl",
        ],
    );
}

/// A module, variables of its server, and what is said.
type Lack<'a> = (&'a str, &'a [(&'a str, &'a Path)], &'a [&'a str]);

#[test]
fn what_a_module_lacks_beside_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let at = |name: &str| pkcs11_module(name);
    let device = Device::new();
    let cases: [Lack<'_>; 5] = [
        (
            "libsofthsm2.so",
            &[("SOFTHSM2_CONF", "/nonexistent/softhsm2.conf".as_ref())],
            &["/nonexistent/softhsm2.conf", "does not exist"],
        ),
        (
            "libtpm2_pkcs11.so",
            &[("TPM2_PKCS11_STORE", "/nonexistent/store".as_ref())],
            &["TPM2_PKCS11_STORE", "does not exist"],
        ),
        (
            "libtpm2_pkcs11.so",
            &[("TPM2_PKCS11_STORE", folder.path())],
            &["/dev/tpmrm0 does not exist"],
        ),
        (
            "opensc-pkcs11.so",
            &[("PCSCLITE_CSOCK_NAME", &store)],
            &["pcscd", "start pcscd"],
        ),
        (
            "p11-kit-client.so",
            &[(
                "P11_KIT_SERVER_ADDRESS",
                "unix:path=/nonexistent/p11-kit".as_ref(),
            )],
            &["p11-kit", "does not exist"],
        ),
    ];
    for (module, variables, words) in cases {
        let server = Server::builder()
            .module(&at(module))
            .envs(variables.iter().copied());
        let server = server
            .envs([("TEDGE_CONFIG_DIR", device.folder.path())])
            .pin(PIN)
            .start();
        device
            .check_at(server.socket(), &[])
            .fails("module", 6, words);
    }
}

#[test]
fn a_call_that_hangs_is_named() {
    let device = Device::new();
    let server = device.fixture.start_quick();
    let key = server.client().open(KEY).unwrap();
    key.sign().unwrap();
    device.fixture.faults.set([on(C_Sign).hangs()]);
    let hanging = thread::spawn(move || key.sign());
    wait_until(|| server.client().status().trouble.is_some());
    let told = device.check(&server, &[]);
    told.fails("module", 6, &["C_Sign on pkcs11:", "has not returned for"]);
    device.fixture.faults.set([]);
    let _ = hanging.join();
}

#[test]
fn a_server_that_waits_for_its_configuration_says_what_is_wrong_with_it() {
    let device = Device::new();
    let socket = device.folder.path().join("activated.sock");
    let server = Server::builder()
        .module("/usr/lib/softhsm/libsofthsm.so".as_ref())
        .pin(PIN);
    let server = server
        .envs([("TEDGE_CONFIG_DIR", device.folder.path())])
        .activate(&socket);
    let told = device.check_at(&socket, &[]);
    told.fails("module", 6, &["/usr/lib/softhsm/libsofthsm.so"]);
    drop(server);
}

#[test]
fn on_a_machine_without_anything_the_socket_is_what_fails() {
    let told = check(&[], |check: &mut Command| {
        check.args([
            "--config-dir",
            "/nonexistent",
            "--socket-path",
            "/nonexistent/p11.sock",
        ]);
    });
    assert_eq!(told.json["ok"], false);
    assert_eq!(told.json["exit"], 5);
    told.fails("socket", 5, &["there is no socket /nonexistent/p11.sock"]);
}
