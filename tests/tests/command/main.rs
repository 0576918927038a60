//! `tedge-p11`, as a person and as a script use it, on SoftHSM2 and the real server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod certificate;
mod change_pin;
mod create_key;
mod csr;
mod delete_key;
mod help;
mod init;
mod key_file;
mod listings;
mod names;
mod old_server;
mod public_key;
mod reaching;
mod schema;
mod sign;
mod terminal;
mod tpm;

use std::{ffi::OsStr, process::Command};

use p11_tests::{binary, server::Server, terminal::Terminal, tools::command};

/// What a command printed, and how it ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

/// A command line that was not started yet, in the server's folder and with its configuration folder. It has no terminal.
struct CommandLine(Command);

/// Runs `tedge-p11` with these arguments.
fn tedge_p11(server: &Server, arguments: &[&str]) -> Ended {
    CommandLine::new(server, arguments).run()
}

/// The same with `--json`: the exit code, and the answer, which has the fields that docs/command.md gives it.
fn json(server: &Server, arguments: &[&str]) -> (i32, serde_json::Value) {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let ended = tedge_p11(server, &arguments);
    let lines: Vec<_> = ended.stdout.lines().collect();
    let [line] = lines.as_slice() else {
        panic!("one line of JSON is expected: {ended:?}")
    };
    let answer = serde_json::from_str(line).unwrap();
    let command = match arguments[0] {
        "certificate" => arguments[..2].join(" "),
        command => command.to_owned(),
    };
    schema::check(&command, &answer);
    (ended.code, answer)
}

/// The same at a terminal.
fn at_terminal(server: &Server, arguments: &[&str]) -> Terminal {
    let mut command = binary::tedge_p11();
    command
        .args(arguments)
        .current_dir(server.folder())
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env("TEDGE_CONFIG_DIR", server.folder())
        .env("TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH", server.socket());
    Terminal::start(&command)
}

/// How many objects are on the token.
fn count(server: &Server) -> usize {
    let listed = server.client().list_keys("pkcs11:token=device");
    listed.unwrap().len()
}

impl CommandLine {
    fn new(server: &Server, arguments: &[&str]) -> Self {
        let mut outer = without_terminal();
        outer
            .args(arguments)
            .current_dir(server.folder())
            .env("TEDGE_CONFIG_DIR", server.folder())
            .env("TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH", server.socket());
        CommandLine(outer)
    }

    fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    fn run(self) -> Ended {
        self.run_with_input("")
    }

    /// With this on stdin.
    fn run_with_input(self, input: &str) -> Ended {
        let mut command = assert_cmd::Command::from_std(self.0);
        let output = command.write_stdin(input).output().unwrap();
        Ended {
            code: output.status.code().expect("an exit code"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// It is done; what stdout has, without the line end.
    fn done(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.trim_end_matches('\n')
    }

    /// It was refused: the exit code is this, stderr says all of these, and stdout nothing.
    fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        self.says(words);
    }

    /// stderr has all of these.
    fn says(&self, words: &[&str]) {
        for part in words {
            assert!(self.stderr.contains(part), "{part:?} is not in {self:?}");
        }
    }
}

/// A command of a session without a terminal, even if who runs the tests has one.
fn without_terminal() -> Command {
    let inner = binary::tedge_p11();
    let mut outer = command("setsid");
    outer.arg("--wait").arg(inner.get_program());
    for (name, _) in inner.get_envs() {
        outer.env_remove(name);
    }
    outer
}
