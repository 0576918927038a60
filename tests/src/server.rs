//! The real `tedge-p11-server`, running with some configuration. At the end its log is searched for PINs.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use p11_fault_module::Faults;
use tempfile::TempDir;

use crate::{
    binary,
    client::TestClient,
    namespace::Namespace,
    process::Process,
    secrets::Secrets,
    softhsm::SoftHsm,
    tools::command,
    wait::{TIMEOUT, is_soon},
};

/// A running server. Dropping it kills it and fails the test if its log shows a PIN.
pub struct Server {
    process: Process,
    socket: PathBuf,
    secrets: Secrets,
    folder: TempDir,
}

/// What a server is started with: at first a socket and a configuration folder in a temporary
/// folder, where it also runs, and nothing else.
pub struct Builder {
    command: Command,
    folder: TempDir,
    socket: Option<PathBuf>,
    secrets: Secrets,
}

impl Server {
    /// A server that has no module yet.
    pub fn builder() -> Builder {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = binary::server();
        command
            .current_dir(folder.path())
            .env("TEDGE_CONFIG_DIR", folder.path());
        Builder {
            command,
            folder,
            socket: None,
            secrets: Secrets::default(),
        }
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client that has not connected yet.
    pub fn client(&self) -> TestClient {
        TestClient::at(&self.socket)
    }

    /// The temporary folder that it runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        // The server collects lines for 10 ms.
        thread::sleep(Duration::from_millis(100));
        self.process.log()
    }

    /// Waits until the log contains `text` and returns the first line with it.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.process.wait_for_log(text, TIMEOUT)
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

    /// Sends SIGHUP, and waits until the server has taken over what is configured now.
    pub fn sighup(&self) {
        self.wait_for_log("Server listening");
        let taken_over = || self.log().matches("Using cryptoki configuration").count();
        let before = taken_over();
        self.signal(Signal::SIGHUP);
        assert!(is_soon(|| taken_over() > before), "{}", self.log());
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        self.process.wait(timeout)
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a test that fails shows what its server said"
)]
impl Drop for Server {
    fn drop(&mut self) {
        let log = self.process.kill();
        // A second panic would end the test run and hide the first.
        match thread::panicking() {
            true => eprintln!("tedge-p11-server said:\n{log}"),
            false => self.secrets.assert_absent(&log),
        }
    }
}

impl Builder {
    /// Runs the server that waits seconds for what takes the real one half a minute.
    pub fn quick(mut self) -> Self {
        let real = std::mem::replace(&mut self.command, binary::quick_server());
        self.command
            .current_dir(self.folder.path())
            .args(real.get_args());
        copy_envs(&real, &mut self.command);
        self
    }

    /// Runs the server that is configured so far in a namespace.
    pub fn within(mut self, namespace: &Namespace) -> Self {
        self.command = namespace.enter(&self.command);
        self
    }

    /// Runs the server that is configured so far as another user, whose its folder becomes.
    pub fn as_user(mut self, uid: u32) -> Self {
        chown(self.folder.path(), Some(uid), Some(uid)).unwrap();
        let program = self.command.get_program().to_owned();
        // The folders of cargo may be closed to that user, but a file that is open is not.
        let script = r#"user=$1; exec 9< "$2"; shift 2
            exec setpriv --reuid="$user" --regid="$user" --clear-groups /proc/self/fd/9 "$@""#;
        let mut command = command("sh");
        command
            .current_dir(self.folder.path())
            .args(["-c", script, "sh", &uid.to_string()])
            .arg(program)
            .args(self.command.get_args());
        copy_envs(&self.command, &mut command);
        self.command = command;
        self
    }

    /// Uses this token store, whose PINs must not appear in the log.
    pub fn softhsm(mut self, hsm: &SoftHsm) -> Self {
        self.secrets.add_all(hsm.secrets());
        self.command.envs(hsm.envs());
        self.module(&hsm.module())
    }

    /// Uses this token store through the module that injects faults.
    pub fn softhsm_with_faults(mut self, hsm: &SoftHsm, faults: &Faults) -> Self {
        self.secrets.add_all(hsm.secrets());
        self.command.envs(hsm.envs()).envs(faults.envs());
        self.module(&Faults::module_path())
    }

    /// Loads this module.
    pub fn module(self, module: &Path) -> Self {
        self.args(["--module-path".as_ref(), module.as_os_str()])
    }

    /// Configures a PIN (by its variable, since the flag brings a warning), which must not appear in the log.
    pub fn pin(self, pin: &str) -> Self {
        self.secrets.add(pin);
        self.envs([("TEDGE_DEVICE_CRYPTOKI_PIN", pin)])
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

    /// Takes a variable of the test's own out of the environment.
    pub fn without_env(mut self, variable: &str) -> Self {
        self.command.env_remove(variable);
        self
    }

    /// Writes a `tedge.toml` into the configuration folder.
    pub fn tedge_toml(self, text: &str) -> Self {
        let file = self.folder.path().join("tedge.toml");
        fs::write(&file, text).unwrap();
        // For all to read it would bring a warning where it holds a PIN.
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        self
    }

    /// The temporary folder that the server will run in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Passes no `--socket-path`: other configuration makes the server listen on this path, which
    /// may be relative to its folder.
    pub fn expect_socket(mut self, path: impl AsRef<Path>) -> Self {
        self.socket = Some(self.folder.path().join(path));
        self
    }

    /// Starts the server and waits until it takes connections.
    pub fn start(self) -> Server {
        let mut server = self.spawn();
        let mut listens = false;
        is_soon(|| {
            listens = UnixStream::connect(&server.socket).is_ok();
            listens || !server.is_running()
        });
        assert!(
            listens,
            "tedge-p11-server does not take connections; it said:\n{}",
            server.log()
        );
        server
    }

    /// Starts the server and waits for nothing.
    pub fn spawn(mut self) -> Server {
        let socket = self.settle_socket();
        Server {
            process: Process::start("tedge-p11-server", self.command),
            socket,
            secrets: self.secrets,
            folder: self.folder,
        }
    }

    /// Starts `systemd-socket-activate` and waits until it listens on this socket, with which it becomes
    /// the server when somebody connects.
    pub fn activate(self, socket: &Path) -> Server {
        let mut activate = command("systemd-socket-activate");
        activate.current_dir(self.folder.path());
        activate.arg("--listen").arg(socket);
        // It hands on only the variables that it is told to.
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                let (name, value) = (name.to_str().unwrap(), value.to_str().unwrap());
                activate.arg(format!("--setenv={name}={value}"));
            }
        }
        activate.arg(self.command.get_program());
        activate.args(self.command.get_args());
        let server = Server {
            process: Process::start("systemd-socket-activate", activate),
            socket: socket.into(),
            secrets: self.secrets,
            folder: self.folder,
        };
        server.wait_for_log("Listening on");
        server
    }

    /// The command that would start the server, and the folder that must live as long as it runs.
    pub fn into_command(mut self) -> (Command, TempDir) {
        self.settle_socket();
        (self.command, self.folder)
    }

    fn settle_socket(&mut self) -> PathBuf {
        self.socket.take().unwrap_or_else(|| {
            let socket = self.folder.path().join("p11.sock");
            self.command.arg("--socket-path").arg(&socket);
            socket
        })
    }
}

fn copy_envs(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}
