//! Stopping and reconfiguring a server that is in use.

use std::{
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    signal::Signal,
    socket::{Shutdown, shutdown},
};
use p11_client::{Client, Config, ErrorCode, message::OpenKey};
use p11_fault_module::{
    Faults,
    Function::{C_CloseSession, C_Finalize, C_Logout, C_OpenSession, C_Sign},
    on,
};
use p11_proto::{
    Request, Response,
    message::{ListTokens, Ping, Sign},
};
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    process::Process,
    raw_client::RawClient,
    server::Server,
    softhsm::SoftHsm,
    text::assert_contains,
    wait::{TIMEOUT, wait_until},
};

/// Says how many signatures there were until the server was gone. Whatever it answered before, it
/// answered well.
fn sign_until_it_is_gone(socket: &Path, signatures: &AtomicU32) {
    let client = Client::new(Config::new(socket).retry_for(Duration::ZERO));
    let open = OpenKey::new(KEY);
    let key = match client.open_key(open) {
        Ok(key) => key,
        Err(p11_client::Error::Server(failure)) => panic!("{failure}"),
        // Others were quicker, and it is gone already.
        Err(_) => return,
    };
    loop {
        let request = Sign::new(KEY, key.schemes[0], b"a message".to_vec(), key.identity);
        match client.sign(request) {
            Ok(_) => signatures.fetch_add(1, Ordering::Relaxed),
            Err(p11_client::Error::Server(failure)) => panic!("{failure}"),
            Err(_) => return,
        };
    }
}

#[test]
fn a_signal_stops_the_server_under_load_and_its_token_is_logged_out() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (fixture, mut server) = Fixture::started();
        let signatures = AtomicU32::new(0);
        let socket = server.socket().to_owned();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| sign_until_it_is_gone(&socket, &signatures));
            }
            wait_until(|| signatures.load(Ordering::Relaxed) > 50);
            let began = Instant::now();
            server.signal(signal);
            let status = server.wait(TIMEOUT);
            assert_eq!(status.code(), Some(0), "{}", server.log());
            assert!(
                began.elapsed() < Duration::from_secs(3),
                "{:?}",
                began.elapsed()
            );
        });
        assert!(!socket.exists());
        let calls = fixture.faults.counts();
        assert_eq!(calls.of(C_Logout), 1, "{calls}");
        assert_eq!(calls.of(C_OpenSession), calls.of(C_CloseSession), "{calls}");
        assert_eq!(calls.of(C_Finalize), 1, "{calls}");
    }
}

#[test]
fn a_running_request_is_answered_before_the_server_stops() {
    let (fixture, mut server) = Fixture::started();
    let key = server.client().open(KEY).unwrap();
    fixture.faults.set([on(C_Sign).delays(500)]);
    let before = fixture.faults.count(C_Sign);
    let signing = thread::spawn(move || key.sign());
    wait_until(|| fixture.faults.count(C_Sign) > before);
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    signing.join().unwrap().unwrap();
    assert_eq!(fixture.faults.count(C_Finalize), 1);
}

#[test]
fn a_request_that_runs_too_long_does_not_delay_the_end() {
    let (fixture, mut server) = Fixture::started();
    let mut silent = RawClient::admitted(server.socket());
    let key = server.client().open(KEY).unwrap();
    fixture.faults.set([on(C_Sign).hangs()]);
    let before = fixture.faults.count(C_Sign);
    let _signing = thread::spawn(move || key.sign());
    wait_until(|| fixture.faults.count(C_Sign) > before);
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    assert!(silent.is_closed());
    assert_eq!(server.wait(TIMEOUT).code(), Some(0), "{}", server.log());
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(4) && took < Duration::from_secs(7),
        "{took:?}"
    );
    assert_contains(server.log(), ["1 requests did not end in time"]);
    // With a call in the module, nothing more is done to it.
    assert_eq!(fixture.faults.count(C_Finalize), 0);
}

#[test]
fn the_server_survives_a_shortage_of_file_descriptors() {
    let (_fixture, server, key) = Fixture::steady();
    p11_tests::tools::run(
        Command::new("prlimit")
            .args(["--pid", &server.pid().to_string()])
            .arg("--nofile=30:30"),
    );
    let mut kept = RawClient::admitted(server.socket());
    let idle: Vec<_> = (0..60)
        .map(|_| RawClient::connect(server.socket()))
        .collect();
    let line = server.wait_for_log("cannot accept a connection now");
    assert!(line.contains("Too many open files"), "{line}");
    assert!(kept.ping());
    thread::sleep(Duration::from_secs(1));
    let said = server.log();
    let lines = said.matches("cannot accept a connection now").count();
    assert!(lines < 5, "{lines} lines in a second");
    drop(idle);
    assert!(RawClient::admitted(server.socket()).ping());
    key.sign().unwrap();
}

#[test]
fn the_server_ends_when_it_cannot_accept_any_more() {
    let hsm = SoftHsm::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("passed.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (server, _folder) = Server::builder()
        .softhsm(&hsm)
        .pin(PIN)
        .expect_socket(&socket)
        .into_command();
    // Passes the socket as systemd does (sd_listen_fds(3)), and keeps an end of it.
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(server.get_program())
        .args(server.get_args())
        .envs(
            server
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let input = OwnedFd::from(listener.try_clone().unwrap());
    let mut process = Process::start_with_input("tedge-p11-server", command, input.into());
    RawClient::admitted(&socket);
    shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
    let status = process.wait(TIMEOUT);
    assert_eq!(status.code(), Some(1), "{}", process.log());
    let log = process.log();
    assert!(
        log.lines()
            .last()
            .unwrap()
            .contains("accepting connections failed"),
        "{log}"
    );
}

/// A server with all its configuration in one file, which it reads again on SIGHUP.
struct Configured {
    server: Server,
}

/// What the file says.
struct File<'a> {
    module: &'a Path,
    socket: &'a Path,
    pin: &'a str,
    uri: &'a str,
}

impl File<'_> {
    fn text(&self) -> String {
        format!(
            "[device.cryptoki]\nmodule_path = {:?}\nsocket_path = {:?}\npin = {:?}\nuri = {:?}\n",
            self.module, self.socket, self.pin, self.uri
        )
    }
}

impl Configured {
    fn start(fixture: &Fixture, pin: &str, uri: &str) -> Self {
        let builder = Server::builder();
        let socket = builder.folder().join("p11.sock");
        let file = File {
            module: &Faults::module_path(),
            socket: &socket,
            pin,
            uri,
        };
        let server = builder
            .tedge_toml(&file.text())
            .expect_socket(&socket)
            .envs(fixture.hsm.envs())
            .envs(fixture.faults.envs())
            .start();
        server.secrets().add_all(fixture.hsm.secrets());
        server.secrets().add(pin);
        server.wait_for_log("Server listening");
        Self { server }
    }

    fn socket(&self) -> &Path {
        self.server.socket()
    }

    /// Writes another text, and has the server read it. Answers what it says of it.
    fn reload(&self, text: &str) -> String {
        fs::write(self.server.folder().join("tedge.toml"), text).unwrap();
        let before = self.server.log().len();
        self.server.signal(Signal::SIGHUP);
        let said = || self.server.log().split_off(before);
        wait_until(|| {
            said().contains("Using cryptoki configuration") || said().contains(" ERROR ")
        });
        said()
    }

    fn reload_with(&self, pin: &str, uri: &str) -> String {
        let file = File {
            module: &Faults::module_path(),
            socket: self.socket(),
            pin,
            uri,
        };
        self.reload(&file.text())
    }
}

fn open(kept: &mut RawClient) -> Result<(), ErrorCode> {
    let open = Request::OpenKey(OpenKey::new("pkcs11:object=key"));
    match kept.ask(&open).expect("the connection is kept") {
        Response::Key(_) => Ok(()),
        Response::Error(failure) => Err(failure.code),
        other => panic!("{other:?}"),
    }
}

fn tokens(kept: &mut RawClient) -> Vec<String> {
    match kept.ask(&Request::ListTokens(ListTokens::default())) {
        Some(Response::Tokens(listing)) => {
            let tokens = listing.tokens.into_iter();
            tokens
                .filter(|token| token.initialized)
                .map(|token| token.label)
                .collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sighup_takes_over_pin_and_uri_and_keeps_the_connections() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let configured = Configured::start(&fixture, "111999", "pkcs11:token=device");
    let mut kept = RawClient::with_preamble(configured.socket());
    assert_eq!(open(&mut kept), Err(ErrorCode::PinIncorrect));
    assert_eq!(tokens(&mut kept), ["device"]);
    configured.reload_with(PIN, "pkcs11:token=second");
    assert_eq!(open(&mut kept), Ok(()));
    assert_eq!(tokens(&mut kept), ["second"]);
}

#[test]
fn sighup_warns_that_module_and_socket_need_a_restart() {
    let fixture = Fixture::new(KeyKind::P256);
    let configured = Configured::start(&fixture, PIN, "pkcs11:token=device");
    let mut kept = RawClient::with_preamble(configured.socket());
    let same = configured.reload_with(PIN, "pkcs11:token=device");
    assert!(!same.contains(" WARN "), "{same}");
    let said = configured.reload(
        &File {
            module: Path::new("/no/such/module.so"),
            socket: Path::new("/no/such/p11.sock"),
            pin: PIN,
            uri: "pkcs11:token=device",
        }
        .text(),
    );
    let warnings: Vec<_> = said
        .lines()
        .filter(|line| line.contains(" WARN "))
        .collect();
    assert_eq!(warnings.len(), 2, "{said}");
    for (warning, path) in warnings.iter().zip(["module.so", "p11.sock"]) {
        assert_contains(warning, [path, "restart"]);
    }
    assert_eq!(open(&mut kept), Ok(()));
    assert!(configured.socket().exists());
}

#[test]
fn sighup_refuses_a_bad_configuration_and_the_old_one_stays() {
    let fixture = Fixture::new(KeyKind::P256);
    let configured = Configured::start(&fixture, PIN, "pkcs11:token=device");
    let mut kept = RawClient::with_preamble(configured.socket());
    for (text, expected) in [
        ("= = =".to_owned(), "line 1, column 3: invalid TOML"),
        (
            "[device.cryptoki]\nmodule_path = \"/x\"\nuri = \"pkcs11:token\"\n".into(),
            "the server's URI cannot be used",
        ),
        (
            "[device.cryptoki]\nmodule_path = \"/x\"\nuri = \"pkcs11:?pin-source=file:/no/such\"\n"
                .into(),
            "cannot read the PIN from /no/such",
        ),
    ] {
        let said = configured.reload(&text);
        assert_contains(&said, ["the configuration is left as it was"]);
        assert!(said.contains(expected), "{said}");
        assert_eq!(open(&mut kept), Ok(()));
        assert_eq!(tokens(&mut kept), ["device"]);
    }
    assert!(kept.ask(&Request::Ping(Ping::default())).is_some());
}
