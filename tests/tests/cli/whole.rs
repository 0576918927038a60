//! A configuration is taken whole or not at all, at the start, at SIGHUP, and while a service manager holds the socket.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use p11_client::ErrorCode;
use p11_fault_module::Function::{C_Initialize, C_Login};
use p11_tests::{
    client::{TestClient, refused},
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    server::{Builder, Server},
    text::assert_contains,
    wait::wait_until,
};

use super::{NO_MODULE, fails_to_start};

/// What a file may be broken by, and what is said of it after the file's name.
const BROKEN: [(&str, &str); 6] = [
    (
        "[device.cryptoki]\npin = 482915\n",
        " line 2, column 7: device.cryptoki.pin must be text: pin = \"...\"",
    ),
    (
        "[device.cryptoki]\npin = 48x2915\n",
        " line 2, column 7: invalid TOML",
    ),
    (
        "[device.cryptoki]\npin = \"482915\nuri = \"pkcs11:\"\n",
        " line 2, column 14: invalid TOML",
    ),
    (
        "[device.cryptoki]\npin = \"482915\"\npin = \"482915\"\n",
        " line 3, column 1: invalid TOML",
    ),
    (
        "[device.cryptoki]\npin = \"482915\"\nuri = [\"482915\"]\n",
        " line 3, column 7: device.cryptoki.uri must be text",
    ),
    (
        "device = \"482915\"\n",
        " line 1, column 10: expected a table: [device.cryptoki]",
    ),
];

fn toml(server: &Server) -> std::path::PathBuf {
    server.folder().join("tedge.toml")
}

#[test]
fn a_broken_file_stops_the_start_though_nothing_of_it_is_needed() {
    for (text, expected) in BROKEN {
        let builder = Server::builder()
            .module(NO_MODULE.as_ref())
            .pin("some-other");
        let builder = builder.uri("pkcs11:token=t").tedge_toml(text);
        let file = builder.folder().join("tedge.toml");
        let said = fails_to_start(builder);
        let last = said.lines().last().unwrap();
        assert!(last.contains(" ERROR "), "{said}");
        assert_contains(last, [&format!("{}{expected}", file.display())]);
        assert!(!said.contains("2915"), "{said}");
        assert!(!said.contains("Using cryptoki configuration"), "{said}");
    }
}

#[test]
fn a_file_that_cannot_be_read_stops_the_start() {
    // Root reads every file, but nobody reads a folder, and a pipe without a writer would be waited for.
    let folder = |file: &Path| fs::create_dir(file).unwrap();
    let socket = |file: &Path| drop(UnixListener::bind(file).unwrap());
    let pipe = |file: &Path| nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for make in [folder as fn(&Path), socket, pipe] {
        let builder = Server::builder().module(NO_MODULE.as_ref());
        let file = builder.folder().join("tedge.toml");
        make(&file);
        let said = fails_to_start(builder);
        let last = said.lines().last().unwrap();
        let expected = format!("cannot read {}: ", file.display());
        assert_contains(
            last,
            [expected.as_str(), "readable for uid 0", "or remove it"],
        );
    }
}

#[test]
fn a_folder_that_was_named_by_a_flag_must_have_the_file() {
    let builder = Server::builder().module(NO_MODULE.as_ref());
    let said = fails_to_start(builder.args(["--config-dir", "/no/such"]));
    assert_contains(
        said.lines().last().unwrap(),
        ["there is no /no/such/tedge.toml", "--config-dir"],
    );
}

/// A server that has all from its file, with a scope of one token among two.
fn scoped(fixture: &Fixture) -> (Server, String) {
    fixture.add_token("second");
    let whole = format!("[device.cryptoki]\nuri = \"pkcs11:token=device\"\npin = \"{PIN}\"\n");
    let server = fixture.server().tedge_toml(&whole).start();
    server.wait_for_log("Server listening");
    (server, whole)
}

/// The scope holds, and so does the PIN: none was tried.
#[track_caller]
fn is_as_before(fixture: &Fixture, server: &Server) {
    let client = server.client();
    client.open(KEY).unwrap().sign().unwrap();
    let deleted = client.delete_key("pkcs11:token=second;object=key");
    refused(deleted, ErrorCode::OutOfScope);
    assert_eq!(fixture.faults.count(C_Login), 1);
}

/// Sends SIGHUP and waits for the refusal, which says this.
fn refuses(server: &Server, count: usize, expected: &str) {
    server.signal(Signal::SIGHUP);
    let refusals = || {
        let log = server.log();
        let lines = log.lines().filter(|line| line.contains("left as it was"));
        lines.map(String::from).collect::<Vec<_>>()
    };
    wait_until(|| refusals().len() == count);
    assert_contains(refusals().last().unwrap(), [" ERROR ", expected]);
}

#[test]
fn sighup_with_a_file_that_cannot_be_used_changes_nothing() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, whole) = scoped(&fixture);
    is_as_before(&fixture, &server);
    let mut count = 0;
    for (text, expected) in BROKEN {
        fs::write(toml(&server), text).unwrap();
        count += 1;
        refuses(&server, count, expected);
        is_as_before(&fixture, &server);
    }
    // An identity may have the same digits.
    let log = server.log();
    let mut errors = log.lines().filter(|line| line.contains(" ERROR "));
    assert!(!errors.any(|line| line.contains("2915")), "{log}");

    fs::remove_file(toml(&server)).unwrap();
    refuses(&server, count + 1, "which was read before; put it back");
    fs::create_dir(toml(&server)).unwrap();
    refuses(&server, count + 2, "Is a directory");
    fs::remove_dir(toml(&server)).unwrap();
    // Half of the file is valid, and would bring the default PIN.
    fs::write(toml(&server), whole.split("pin").next().unwrap()).unwrap();
    refuses(
        &server,
        count + 3,
        "there is no PIN any more in device.cryptoki.pin",
    );
    is_as_before(&fixture, &server);
    // An empty one, without a scope.
    for text in ["", "[device.cryptoki]\n"] {
        fs::write(toml(&server), text).unwrap();
        count += 1;
        refuses(
            &server,
            count + 3,
            "there is no URI of the server any more, which was pkcs11:token=device; put it back",
        );
        is_as_before(&fixture, &server);
    }

    fs::write(toml(&server), &whole).unwrap();
    server.sighup();
    server.client().open(KEY).unwrap().sign().unwrap();
    // The module was initialised anew: some show what other programs have changed by that alone.
    assert_eq!(fixture.faults.count(C_Initialize), 2);
    assert_eq!(fixture.faults.count(C_Login), 2);
}

/// A server with a passed socket, and clients of it.
fn activated(builder: Builder) -> (Server, TestClient, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("passed.sock");
    let server = builder.activate(&socket);
    let client = TestClient::at(&socket);
    (server, client, folder)
}

/// Ping and Status are answered, all else is refused with this.
fn is_misconfigured(client: &TestClient, expected: &str) {
    let status = client.status();
    assert!(!status.available);
    assert_contains(status.trouble.unwrap(), [expected]);
    assert!(status.version.is_some() && status.account.is_some());
    assert_eq!((status.allowed, status.details), (None, None));
    let refused = [
        refused(client.open(KEY).map(drop), ErrorCode::Misconfigured),
        refused(client.delete_key(KEY).map(drop), ErrorCode::Misconfigured),
        refused(client.list_keys(KEY).map(drop), ErrorCode::Misconfigured),
    ];
    for failure in refused {
        assert_contains(&failure.message, [expected]);
        assert!(!failure.message.contains("2915"), "{failure}");
    }
}

#[test]
fn with_a_passed_socket_it_listens_until_the_file_is_mended() {
    for by_signal in [true, false] {
        let fixture = Fixture::new(KeyKind::P256);
        let (text, expected) = BROKEN[0];
        let (mut server, client, _folder) = activated(fixture.server().tedge_toml(text));
        is_misconfigured(&client, expected);
        server.wait_for_log("Server listening");

        fs::write(toml(&server), BROKEN[5].0).unwrap();
        server.signal(Signal::SIGHUP);
        server.wait_for_log(BROKEN[5].1);
        is_misconfigured(&client, BROKEN[5].1);

        let mended = Instant::now();
        let whole = format!("[device.cryptoki]\npin = \"{PIN}\"\n");
        fs::write(toml(&server), whole).unwrap();
        if by_signal {
            server.signal(Signal::SIGHUP);
        }
        wait_until(|| client.status().available);
        // A file that is still being written may be valid and only half of what it will be.
        assert!(by_signal || mended.elapsed() > Duration::from_millis(1900));
        client.open(KEY).unwrap().sign().unwrap();
        assert!(server.is_running());
        assert_eq!(server.terminate().code(), Some(0));
    }
}

#[test]
fn a_file_that_is_being_written_is_not_read() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, client, _folder) = activated(fixture.server().tedge_toml("= = ="));
    is_misconfigured(&client, "invalid TOML");
    // Each of these is valid, and only the last is whole.
    let whole = format!("[device.cryptoki]\npin = \"{PIN}\"\nuri = \"pkcs11:token=device\"\n");
    for count in 1..=3 {
        let part: Vec<_> = whole.split_inclusive('\n').take(count).collect();
        fs::write(toml(&server), part.concat()).unwrap();
        thread::sleep(Duration::from_millis(1200));
    }
    wait_until(|| client.status().available);
    let log = server.log();
    assert_eq!(
        log.matches("Using cryptoki configuration").count(),
        1,
        "{log}"
    );
    assert_contains(&log, ["uri: Some(\"pkcs11:token=device\")"]);
}

#[test]
fn with_a_passed_socket_a_module_that_cannot_be_loaded_is_waited_for() {
    let fixture = Fixture::new(KeyKind::P256);
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("module.so");
    let builder = Server::builder().module(&module).pin(PIN);
    let builder = builder.envs(fixture.hsm.envs());
    let (server, client, _folder) = activated(builder);
    is_misconfigured(
        &client,
        &format!("cannot load the PKCS#11 module {}", module.display()),
    );
    fs::copy(fixture.hsm.module(), &module).unwrap();
    wait_until(|| client.status().available);
    client.open(KEY).unwrap().sign().unwrap();
    assert!(server.log().contains("answering Ping and Status alone"));
}

#[test]
fn a_policy_that_others_may_write_and_pins_that_others_may_read_are_warned_of() {
    let fixture = Fixture::new(KeyKind::P256);
    for (mode, is_warned_of) in [(0o640, false), (0o666, true)] {
        let pin = format!("[device.cryptoki]\npin = \"{PIN}\"\n");
        let builder = fixture.server().tedge_toml(&pin);
        let [toml, policy, source] =
            ["tedge.toml", "policy.toml", "pin"].map(|name| builder.folder().join(name));
        fs::write(&policy, "[[rule]]\nusers = [0]\noperations = [\"sign\"]\n").unwrap();
        fs::write(&source, PIN).unwrap();
        for file in [&toml, &policy, &source] {
            fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        }
        let server = builder
            .uri(&format!("pkcs11:?pin-source=file:{}", source.display()))
            .args(["--policy".as_ref(), policy.as_os_str()])
            .start();
        server.wait_for_log("Server listening");
        let log = server.log();
        let warns = |of: &Path, what: &str| {
            let of = of.display().to_string();
            let mut lines = log.lines().filter(|line| line.contains(" WARN "));
            lines.any(|line| line.contains(&of) && line.contains(what))
        };
        assert_eq!(
            warns(&toml, "every user of this machine may read it"),
            is_warned_of,
            "{log}"
        );
        assert_eq!(
            warns(&source, "every user of this machine may read it"),
            is_warned_of,
            "{log}"
        );
        assert_eq!(warns(&policy, "others may write"), is_warned_of, "{log}");
    }
}

#[test]
fn a_policy_that_others_own_or_can_replace_is_warned_of() {
    let fixture = Fixture::new(KeyKind::P256);
    for (owner, mode, expected) in [
        (0, 0o755, None),
        (0, 0o1777, None),
        (0, 0o777, Some("the folder of the policy")),
        (4711, 0o755, Some("others may write the policy")),
    ] {
        let builder = fixture.server().pin(PIN);
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.toml");
        fs::write(&policy, "[[rule]]\nusers = [0]\noperations = [\"sign\"]\n").unwrap();
        std::os::unix::fs::chown(&policy, Some(owner), None).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let server = builder
            .args(["--policy".as_ref(), policy.as_os_str()])
            .start();
        let log = server.log();
        let mut warnings = log.lines().filter(|line| line.contains("every right"));
        match (warnings.next(), expected) {
            (Some(warning), Some(expected)) => assert_contains(warning, [expected]),
            (warning, expected) => assert_eq!(warning, expected, "{log}"),
        }
    }
}
