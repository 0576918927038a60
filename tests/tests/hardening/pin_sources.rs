//! Where the server's PIN comes from, and that nobody can take it from the server's memory.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use p11_client::ErrorCode;
use p11_fault_module::Function::C_Login;
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    process::Process,
    server::{Builder, Server},
    text::assert_contains,
    wait::{TIMEOUT, wait_until},
};

/// A PIN that no token has.
const WRONG: &str = "not-the-pin";

/// All sources that a PIN can be in, the one that goes before the others first.
const SOURCES: [&str; 6] = [
    "pin-value",
    "pin-source",
    "flag",
    "environment",
    "credential",
    "file",
];

/// A server whose PIN is in these sources, and only there.
fn with_pins(fixture: &Fixture, pins: &[(&str, &str)]) -> Server {
    let server = builder_with(fixture, pins).start();
    server.secrets().add(WRONG);
    server
}

fn builder_with(fixture: &Fixture, pins: &[(&str, &str)]) -> Builder {
    let mut builder = fixture.server();
    let folder = builder.folder().to_owned();
    let mut query = Vec::new();
    for (source, pin) in pins {
        builder = match *source {
            "pin-value" => {
                query.push(format!("pin-value={pin}"));
                builder
            }
            "pin-source" => {
                let file = file(&folder, "source", pin);
                query.push(format!("pin-source=file:{}", file.display()));
                builder
            }
            "flag" => builder.args(["--pin", pin]),
            "environment" => builder.envs([("TEDGE_DEVICE_CRYPTOKI_PIN", pin)]),
            "credential" => {
                file(&folder, "pin", &format!("{pin}\n"));
                builder.envs([("CREDENTIALS_DIRECTORY", &folder)])
            }
            "file" => builder.tedge_toml(&format!("[device.cryptoki]\npin = \"{pin}\"\n")),
            other => panic!("no such source: {other}"),
        };
    }
    if !query.is_empty() {
        builder = builder.uri(&format!("pkcs11:?{}", query.join("&")));
    }
    builder
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_pin_can_come_from_each_source() {
    for source in SOURCES {
        let fixture = Fixture::new(KeyKind::P256);
        let server = with_pins(&fixture, &[(source, PIN)]);
        server.client().open(KEY).unwrap().sign().unwrap();
        assert!(!server.log().contains("no PIN is configured"), "{source}");
    }
}

#[test]
fn each_source_goes_before_the_next() {
    // A URI has one of the first two.
    let pairs = SOURCES.windows(2).skip(1).map(|pair| (pair[0], pair[1]));
    for (first, next) in pairs.chain([("pin-value", "flag")]) {
        let fixture = Fixture::new(KeyKind::P256);
        let server = with_pins(&fixture, &[(first, PIN), (next, WRONG)]);
        server.client().open(KEY).unwrap().sign().unwrap();
        let fixture = Fixture::new(KeyKind::P256);
        let server = with_pins(&fixture, &[(first, WRONG), (next, PIN)]);
        refused(server.client().open(KEY), ErrorCode::PinIncorrect);
    }
    // One that is empty counts as not given.
    let fixture = Fixture::new(KeyKind::P256);
    let server = with_pins(
        &fixture,
        &[("flag", ""), ("environment", ""), ("file", PIN)],
    );
    server.client().open(KEY).unwrap();
}

#[test]
fn a_pin_on_the_command_line_works_with_a_warning_that_others_can_read_it() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = with_pins(&fixture, &[("flag", PIN)]);
    let line = server.wait_for_log("command line");
    assert_contains(&line, [" WARN ", "process list"]);
    for source in SOURCES.into_iter().filter(|source| *source != "flag") {
        let fixture = Fixture::new(KeyKind::P256);
        let server = with_pins(&fixture, &[(source, PIN)]);
        server.wait_for_log("Server listening");
        assert!(!server.log().contains("process list"), "{source}");
    }
}

#[test]
fn line_ends_at_the_end_of_a_file_are_not_part_of_the_pin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("the pin");
    let encoded = path.display().to_string().replace(' ', "%20");
    for (end, source) in [
        ("\n", "file:"),
        ("", ""),
        ("\r\n", ""),
        ("\n\n", ""),
        ("\r\n\r\n", "file:"),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        fs::write(&path, format!("{PIN}{end}")).unwrap();
        let uri = format!("pkcs11:?pin-source={source}{encoded}");
        let server = fixture.server().uri(&uri).start();
        server.client().open(KEY).unwrap().sign().unwrap();
    }
    let fixture = Fixture::new(KeyKind::P256);
    let server = with_pins(&fixture, &[("credential", &format!("{PIN}\r\n"))]);
    server.client().open(KEY).unwrap().sign().unwrap();
}

#[test]
fn a_file_that_holds_no_pin_alone_is_named_and_nothing_of_it_is_sent() {
    for (content, reason) in [
        (String::new(), "it is empty"),
        ("\r\n".into(), "it is empty"),
        ("  \n".into(), "it is empty"),
        (format!("{PIN} \n"), "a blank before or after the PIN"),
        (format!("\t{PIN}"), "a blank before or after the PIN"),
        (format!("{PIN}\n{WRONG}\n"), "several lines"),
        (format!("\u{feff}{PIN}\n"), "a byte order mark"),
        (format!("{PIN}\0\n"), "a control character"),
    ] {
        for of_uri in [true, false] {
            let fixture = Fixture::new(KeyKind::P256);
            let builder = fixture.server();
            let folder = builder.folder().to_owned();
            let path = file(&folder, "pin", &content);
            let mut server = match of_uri {
                true => builder.uri(&format!("pkcs11:?pin-source={}", path.display())),
                false => builder.envs([("CREDENTIALS_DIRECTORY", &folder)]),
            }
            // Another source takes the place of none that is broken.
            .tedge_toml(&format!("[device.cryptoki]\npin = \"{PIN}\"\n"))
            .spawn();
            assert_eq!(server.wait(TIMEOUT).code(), Some(1), "{content:?}");
            let log = server.log();
            let last = log.lines().last().unwrap();
            let path = path.display().to_string();
            assert_contains(last, [" ERROR ", reason, path.as_str()]);
            assert_eq!(fixture.faults.count(C_Login), 0);
        }
    }
}

/// As in files, line ends at the end are dropped, and what else could be there by mistake is named and not sent.
#[test]
fn a_pin_in_any_source_is_held_to_what_holds_in_files() {
    let sources = ["flag", "environment", "file", "pin-value"];
    for (source, end) in sources
        .into_iter()
        .flat_map(|one| [(one, "\n"), (one, "\r\n")])
    {
        let fixture = Fixture::new(KeyKind::P256);
        let pin = spelled(source, &format!("{PIN}{end}"));
        let server = with_pins(&fixture, &[(source, &pin)]);
        server.client().open(KEY).unwrap().sign().unwrap();
    }
    for (source, name) in [
        ("flag", "the PIN of --pin "),
        ("environment", "the PIN of TEDGE_DEVICE_CRYPTOKI_PIN "),
        ("file", "tedge.toml line 2 "),
        ("pin-value", "pin-value of the server's URI "),
    ] {
        for (text, reason) in [
            (format!("{PIN} "), "a blank before or after the PIN"),
            (format!("{PIN}\r\n{WRONG}"), "several lines"),
            (format!("{PIN}\u{1b}"), "a control character"),
        ] {
            let fixture = Fixture::new(KeyKind::P256);
            let pin = spelled(source, &text);
            if (source, reason) == ("pin-value", "a blank before or after the PIN") {
                // There it was written as %20.
                let server = with_pins(&fixture, &[(source, &pin)]);
                refused(server.client().open(KEY), ErrorCode::PinIncorrect);
                continue;
            }
            let mut server = builder_with(&fixture, &[(source, &pin)]).spawn();
            assert_eq!(server.wait(TIMEOUT).code(), Some(1), "{source} {text:?}");
            let log = server.log();
            assert_contains(log.lines().last().unwrap(), [" ERROR ", reason, name]);
            assert_eq!(fixture.faults.count(C_Login), 0);
        }
    }
}

/// A text as it stands in a source.
fn spelled(source: &str, text: &str) -> String {
    let spell = |letter: char| match (source, letter) {
        ("file", letter) if letter.is_control() => format!("\\u{:04x}", u32::from(letter)),
        ("pin-value", ' ' | '\0'..='\x1f') => format!("%{:02x}", u32::from(letter)),
        _ => letter.to_string(),
    };
    text.chars().map(spell).collect()
}

#[test]
fn an_empty_pin_is_said_and_brings_no_default() {
    let fixture = Fixture::new(KeyKind::P256);
    for (source, name) in [
        ("environment", "TEDGE_DEVICE_CRYPTOKI_PIN"),
        ("flag", "TEDGE_DEVICE_CRYPTOKI_PIN"),
        ("file", "tedge.toml line 2"),
    ] {
        let server = with_pins(&fixture, &[(source, "")]);
        let line = server.wait_for_log("is empty, which is the same as none");
        assert_contains(line, [" WARN ", name]);
        refused(server.client().open(KEY), ErrorCode::PinRequired);
        assert_eq!(fixture.faults.count(C_Login), 0);
    }
}

#[test]
fn a_refused_pin_is_named_by_its_source_and_the_line_in_a_file() {
    for (source, name) in [
        ("pin-value", "pin-value of the server's URI"),
        ("pin-source", "/source, the pin-source of the server's URI"),
        ("flag", "--pin"),
        ("environment", "TEDGE_DEVICE_CRYPTOKI_PIN"),
        ("credential", "the credential pin"),
        ("file", "tedge.toml line 2"),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        let server = with_pins(&fixture, &[(source, WRONG)]);
        for _ in 0..2 {
            let told = refused(server.client().open(KEY), ErrorCode::PinIncorrect);
            assert_contains(&told.message, [name]);
        }
    }
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().start();
    for _ in 0..2 {
        let told = refused(server.client().open(KEY), ErrorCode::PinIncorrect);
        assert_contains(
            &told.message,
            ["the default PIN", "--pin or device.cryptoki.pin"],
        );
    }
    server.secrets().add(WRONG);
    let told = refused(
        server.client().with_pin(WRONG).open(KEY),
        ErrorCode::PinIncorrect,
    );
    assert_contains(&told.message, ["the request's PIN"]);
}

#[test]
fn a_pin_source_that_cannot_be_read_stops_the_start_and_is_named() {
    for (source, reason) in [
        (
            "file:/no/such/file",
            "cannot read the PIN from /no/such/file",
        ),
        ("/no/such/file", "No such file"),
        ("%7Ccat%20/etc/pin", "pin-source"),
        ("https:%2F%2Fexample.org/pin", "pin-source"),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        let uri = format!("pkcs11:?pin-source={source}");
        let mut server = fixture.server().uri(&uri).spawn();
        assert_eq!(server.wait(TIMEOUT).code(), Some(1));
        let log = server.log();
        let last = log.lines().last().unwrap();
        assert!(last.contains(" ERROR ") && last.contains(reason), "{log}");
    }
}

#[test]
fn a_credential_of_another_name_is_none() {
    let fixture = Fixture::new(KeyKind::P256);
    let builder = fixture.server();
    let folder = builder.folder().to_owned();
    file(&folder, "tls-key", WRONG);
    let builder = builder.envs([("CREDENTIALS_DIRECTORY", &folder)]);
    let server = builder
        .tedge_toml(&format!("[device.cryptoki]\npin = \"{PIN}\"\n"))
        .start();
    server.client().open(KEY).unwrap().sign().unwrap();
}

#[test]
fn a_credential_that_cannot_be_read_stops_the_start_and_wants_a_restart() {
    let fixture = Fixture::new(KeyKind::P256);
    let builder = fixture.server();
    let folder = builder.folder().to_owned();
    fs::create_dir(folder.join("pin")).unwrap();
    let mut server = builder.envs([("CREDENTIALS_DIRECTORY", &folder)]).spawn();
    assert_eq!(server.wait(TIMEOUT).code(), Some(1));
    let log = server.log();
    let last = log.lines().last().unwrap();
    assert!(last.contains(" ERROR ") && last.contains("/pin: "), "{log}");
    assert!(last.contains("restart"), "{log}");
}

/// A user without rights, who runs the server here.
const SOMEBODY: u32 = 4711;

/// A server of that user, who has no token.
fn of_somebody(shell: &str) -> (Process, tempfile::TempDir) {
    let (server, folder) = Server::builder()
        .pin(PIN)
        .module(&p11_tests::tools::pkcs11_module("libsofthsm2.so"))
        .into_command();
    chown(folder.path(), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    // What runs there has to be readable for that user, which cargo's folder may not be.
    let program = folder.path().join("tedge-p11-server");
    fs::copy(server.get_program(), &program).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", shell, "sh"])
        .arg(&program)
        .args(server.get_args())
        .envs(
            server
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(folder.path())
        .uid(SOMEBODY)
        .gid(SOMEBODY);
    let process = Process::start("tedge-p11-server", command);
    process.wait_for_log("Server listening", TIMEOUT);
    (process, folder)
}

/// Whether that user can read the environment of a process, for which the kernel asks the same as for
/// tracing it (proc(5), ptrace(2)).
fn can_be_traced(pid: u32) -> bool {
    let mut cat = Command::new("cat");
    cat.arg(format!("/proc/{pid}/environ"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .uid(SOMEBODY)
        .gid(SOMEBODY);
    cat.status().unwrap().success()
}

#[test]
fn processes_of_the_same_user_cannot_trace_the_server() {
    let mut other = Command::new("sleep")
        .arg("60")
        .uid(SOMEBODY)
        .gid(SOMEBODY)
        .spawn()
        .unwrap();
    wait_until(|| can_be_traced(other.id()));
    other.kill().unwrap();
    other.wait().unwrap();

    let (server, _folder) = of_somebody("exec \"$@\"");
    assert!(!can_be_traced(server.pid()));
    let owner = fs::metadata(format!("/proc/{}/mem", server.pid()))
        .unwrap()
        .uid();
    assert_eq!(owner, 0);
}

#[test]
fn the_server_leaves_no_core_dump() {
    let (mut server, _folder) = of_somebody("ulimit -c unlimited; exec \"$@\"");
    server.signal(Signal::SIGABRT);
    let status = server.wait(TIMEOUT);
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
    assert!(!status.core_dumped());
}
