//! A running program, whose log can be read as it grows. Dropping it kills it.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::wait::TIMEOUT;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid},
};

/// A running program whose stdout and stderr are kept.
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts the command with its output captured; `name` is for the messages of failing tests.
    pub fn start(name: &str, command: Command) -> Self {
        Self::start_with_input(name, command, Stdio::null())
    }

    /// The same, with something to read on stdin.
    pub fn start_with_input(name: &str, mut command: Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let log = Arc::new(Log::default());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers = vec![log.follow(stdout), log.follow(stderr)];
        Self {
            name: name.into(),
            child,
            log,
            readers,
        }
    }

    /// Everything the program has printed so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until the log contains `text` and returns the first line with it.
    pub fn wait_for_log(&self, text: &str, timeout: Duration) -> String {
        self.log.wait_for(text, timeout).unwrap_or_else(|| {
            panic!(
                "{} did not say {text:?}; it said:\n{}",
                self.name,
                self.log()
            )
        })
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("process ids fit");
        kill(Pid::from_raw(pid), signal)
            .unwrap_or_else(|error| panic!("cannot send {signal} to {}: {error}", self.name));
    }

    /// Waits for the program to end by itself; panics with its log if it does not.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                self.join_readers();
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end; it said:\n{}",
                self.name,
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(TIMEOUT)
    }

    /// Kills the program if it still runs, and returns its whole log.
    pub fn kill(&mut self) -> String {
        // An error here means that it ended by itself before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_readers();
        self.log()
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes this process, run by root, that of another user for good.
pub fn become_user(uid: u32, gid: u32) {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).expect("only root can become another user");
    setresgid(gid, gid, gid).unwrap();
    setresuid(uid, uid, uid).unwrap();
}

/// What a program printed, filled by one thread for each stream.
#[derive(Default)]
struct Log {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    open_streams: usize,
}

impl Log {
    fn follow(self: &Arc<Self>, mut stream: impl Read + Send + 'static) -> JoinHandle<()> {
        self.state.lock().unwrap().open_streams += 1;
        let log = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let mut state = log.state.lock().unwrap();
                state.bytes.extend_from_slice(&buffer[..length]);
                log.grown.notify_all();
            }
            log.state.lock().unwrap().open_streams -= 1;
            log.grown.notify_all();
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.state.lock().unwrap().bytes).into_owned()
    }

    /// The first line that contains `text`, or none when the time is over or the program gone.
    fn wait_for(&self, text: &str, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock().unwrap();
        loop {
            let so_far = String::from_utf8_lossy(&state.bytes);
            if let Some(line) = so_far.lines().find(|line| line.contains(text)) {
                return Some(line.into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.open_streams == 0 {
                return None;
            }
            state = self.grown.wait_timeout(state, left).unwrap().0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("a script", command)
    }

    #[test]
    fn both_streams_are_logged_and_searched() {
        let process = shell("echo one; sleep 0.1; echo two three >&2; exec sleep 60");
        assert_eq!(process.wait_for_log("three", TIMEOUT), "two three");
        assert_eq!(process.log(), "one\ntwo three\n");
    }

    #[test]
    #[should_panic(expected = "did not say \"never\"; it said:\nsomething else")]
    fn waiting_ends_with_the_program() {
        shell("echo something else").wait_for_log("never", TIMEOUT);
    }

    #[test]
    fn a_program_ends_by_itself_or_is_terminated() {
        assert_eq!(shell("exit 3").wait(TIMEOUT).code(), Some(3));
        let mut sleeper = shell("exec sleep 60");
        assert!(sleeper.is_running());
        assert_eq!(sleeper.terminate().code(), None);
        assert!(!sleeper.is_running());
    }
}
