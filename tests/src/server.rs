//! A configuration goes in; the real `tedge-p11-server` comes out, running, and is held at the end
//! against the PINs that it must not have printed.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    process::{PATIENCE, Process},
    secrets::Secrets,
    softhsm::SoftHsm,
    tools::run,
};

/// A running server. Dropping it kills it and fails the test if its log shows a PIN.
pub struct Server {
    process: Process,
    socket: PathBuf,
    secrets: Secrets,
    _folder: TempDir,
}

/// What a server is started with: at first a socket and a configuration folder in a temporary
/// folder, where it also runs, and nothing else.
pub struct Builder {
    command: Command,
    folder: TempDir,
    secrets: Secrets,
}

impl Server {
    /// A server that has no module yet.
    pub fn builder() -> Builder {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = command();
        command
            .current_dir(folder.path())
            .env("TEDGE_CONFIG_DIR", folder.path())
            .arg("--socket-path")
            .arg(folder.path().join("p11.sock"));
        Builder {
            command,
            folder,
            secrets: Secrets::default(),
        }
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until the log contains `text` and returns the first line with it.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.process.wait_for_log(text, PATIENCE)
    }

    /// The list that its log is held against in the end, to add what a test makes up later.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        self.process.wait(patience)
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let log = self.process.kill();
        // A second panic would end the test run and hide the first.
        if !thread::panicking() {
            self.secrets.assert_absent(&log);
        }
    }
}

impl Builder {
    /// Uses this token store, whose PINs must not appear in the log.
    pub fn softhsm(mut self, hsm: &SoftHsm) -> Self {
        self.secrets.add_all(hsm.secrets());
        self.command.envs(hsm.envs());
        self.module(&hsm.module())
    }

    /// Loads this module.
    pub fn module(self, module: &Path) -> Self {
        self.args(["--module-path".as_ref(), module.as_os_str()])
    }

    /// Configures a PIN, which must not appear in the log.
    pub fn pin(self, pin: &str) -> Self {
        self.secrets.add(pin);
        self.args(["--pin", pin])
    }

    /// Configures the URI of the tokens and keys in scope.
    pub fn uri(self, uri: &str) -> Self {
        self.args(["--uri", uri])
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets environment variables.
    pub fn envs(
        mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    /// Writes a `tedge.toml` into the configuration folder.
    pub fn tedge_toml(self, text: &str) -> Self {
        fs::write(self.folder.path().join("tedge.toml"), text).unwrap();
        self
    }

    /// Starts the server and waits until it takes connections.
    pub fn start(self) -> Server {
        let mut server = self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&server.socket).is_err() {
            assert!(
                server.is_running() && Instant::now() < deadline,
                "tedge-p11-server does not take connections; it said:\n{}",
                server.log()
            );
            thread::sleep(Duration::from_millis(2));
        }
        server
    }

    /// Starts the server and waits for nothing.
    pub fn spawn(self) -> Server {
        Server {
            process: Process::start("tedge-p11-server", self.command),
            socket: self.folder.path().join("p11.sock"),
            secrets: self.secrets,
            _folder: self.folder,
        }
    }
}

/// A command that runs the server with no argument, and with no variable of its own in the environment.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("TEDGE_") {
            command.env_remove(name);
        }
    }
    command
}

/// The server's binary, built from the sources as they are now.
///
/// Cargo builds the libraries that a test depends on but not their binaries, and a stale binary
/// would test yesterday's code. So the first use in each test process has cargo build it into the
/// folder the test itself came from; where nothing changed that takes 50 ms. It works alike under
/// `cargo test` and nextest, which hold no lock on that folder while tests run.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("p11-server", "tedge-p11-server"))
}

/// Builds a binary of this workspace beside the test that runs, and returns its path.
pub fn built(package: &str, binary: &str) -> PathBuf {
    // target/debug/deps/this-test, or target/debug/this-test
    let test = env::current_exe().expect("the path of this test");
    let folder = test
        .ancestors()
        .find(|folder| folder.join(".fingerprint").is_dir())
        .expect("tests run from cargo's target folder");
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("no profile in {}", folder.display()),
    };
    run(
        Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--package", package, "--bin", binary])
            .args(["--profile", profile, "--target-dir"])
            .arg(
                folder
                    .parent()
                    .expect("a profile lies in the target folder"),
            ),
    );
    folder.join(binary)
}
