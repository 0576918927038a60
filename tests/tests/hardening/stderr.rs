//! A log that cannot be written, or that nobody reads, ends and delays nothing; what it lacks is counted.

use std::{
    fs::File,
    io::{PipeReader, Read, pipe},
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use p11_tests::{
    client::TestClient,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    raw_client::RawClient,
    wait::{is_soon, wait_for_listener},
};
use tempfile::TempDir;

/// A server whose output goes where the test wants it, killed in the end.
struct Loud {
    child: Child,
    folder: TempDir,
}

impl Loud {
    /// Starts it, and waits until it listens.
    fn start(fixture: &Fixture, redirect: impl FnOnce(&mut Command)) -> Loud {
        let (mut command, folder) = fixture.server().pin(PIN).into_command();
        redirect(&mut command);
        let child = command.spawn().unwrap();
        let server = Loud { child, folder };
        wait_for_listener(&server.socket());
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("p11.sock")
    }

    fn pings(&self, count: usize) {
        let mut raw = RawClient::admitted(&self.socket());
        assert!((0..count).all(|_| raw.ping()));
    }

    /// Ends it by SIGTERM, in good order and without delay.
    fn stops(mut self) {
        let began = Instant::now();
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        is_soon(|| self.child.try_wait().unwrap().is_some());
        let took = began.elapsed();
        let status = self.child.try_wait().unwrap();
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "{status:?}"
        );
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(!self.socket().exists());
    }
}

impl Drop for Loud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_with_a_stderr_that_takes_nothing() {
    let full = |command: &mut Command| {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        command.stderr(full()).stdout(full());
    };
    let without_reader = |command: &mut Command| {
        command.stderr(pipe().unwrap().1).stdout(pipe().unwrap().1);
    };
    let closed = |command: &mut Command| {
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let variables: Vec<_> = command
            .get_envs()
            .map(|(name, value)| (name.to_owned(), value.unwrap().to_owned()))
            .collect();
        let folder = command.get_current_dir().unwrap().to_owned();
        *command = Command::new("sh");
        command.current_dir(folder).envs(variables);
        command
            .args(["-c", "exec \"$0\" \"$@\" >&- 2>&-"])
            .arg(program)
            .args(arguments);
    };
    for redirect in [full as fn(&mut Command), without_reader, closed] {
        let fixture = Fixture::new(KeyKind::P256);
        let server = Loud::start(&fixture, redirect);
        let client = TestClient::at(&server.socket());
        client.open(KEY).unwrap().sign().unwrap();
        server.pings(100);
        server.stops();
    }
}

/// A server whose stderr is a pipe, and whose stdout nobody reads any more.
fn with_pipe(fixture: &Fixture) -> (Loud, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let server = Loud::start(fixture, |command| {
        command.stdout(pipe().unwrap().1).stderr(writer);
    });
    (server, reader)
}

#[test]
fn it_stops_in_time_while_nobody_reads_what_it_prints() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, _unread) = with_pipe(&fixture);
    flood(&server);
    server.stops();
}

/// Requests of many users, as it were: each has a line.
fn flood(server: &Loud) {
    let client = TestClient::at(&server.socket());
    let key = client.open(KEY).unwrap();
    for _ in 0..6000 {
        key.sign().unwrap();
    }
}

#[test]
fn lines_that_were_dropped_are_counted() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, mut reader) = with_pipe(&fixture);
    flood(&server);
    let reading = thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        log
    });
    // The next line tells of those before it.
    thread::sleep(Duration::from_millis(500));
    let client = TestClient::at(&server.socket());
    client.open(KEY).unwrap().sign().unwrap();
    server.stops();
    let log = reading.join().unwrap();
    let told: Vec<usize> = log
        .lines()
        .filter_map(|line| line.split_once(" lines of the log were dropped"))
        .map(|(before, _)| before.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    let dropped: usize = told.iter().sum();
    let written = log.matches("operation=Sign ").count();
    assert_eq!(
        written + dropped,
        6001,
        "{written} written, {told:?} dropped"
    );
    assert!(dropped > 1000, "{dropped}");
}
