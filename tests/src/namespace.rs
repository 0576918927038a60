//! Programs that see folders of a test in place of the system's: a mount and IPC namespace (namespaces(7)).
//!
//! Some programs have their configuration, their state and their sockets at places that nothing changes. In a
//! namespace of its own each test has its own of them, beside what the machine runs.

use std::{path::Path, process::Command};

use crate::{process::Process, tools::command, wait::TIMEOUT};

/// A namespace, gone when dropped and no program is in it any more. `/run` and `/dev/shm` are empty at first.
pub struct Namespace {
    /// Keeps it while no other program is in it.
    holder: Process,
}

impl Namespace {
    /// Shows each of these folders at a path where the system has another. Only root can.
    pub fn new(folders: &[(&Path, &str)]) -> Self {
        let script = r#"
            mount -t tmpfs tmpfs /run && mkdir /run/lock && mount -t tmpfs tmpfs /dev/shm || exit
            while [ $# -gt 0 ]; do mount --bind "$1" "$2" || exit; shift 2; done
            echo ready
            exec sleep infinity"#;
        let mut holder = command("unshare");
        holder.args(["--mount", "--ipc", "sh", "-c", script, "sh"]);
        for (folder, path) in folders {
            holder.arg(folder).arg(path);
        }
        let holder = Process::start("unshare, which only root can use,", holder);
        holder.wait_for_log("ready", TIMEOUT);
        Self { holder }
    }

    /// The same command, to be run in it, with the variables that are set for it.
    pub fn enter(&self, inner: &Command) -> Command {
        let mut outer = command("nsenter");
        outer.args([
            "--mount",
            "--ipc",
            "--target",
            &self.holder.pid().to_string(),
        ]);
        outer.args(["--", "env"]);
        // A namespace is entered at its root.
        if let Some(folder) = inner.get_current_dir() {
            outer.arg("--chdir").arg(folder);
        }
        outer.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
    }

    /// A command that runs a program of Debian in it.
    pub fn command(&self, name: &str) -> Command {
        self.enter(&command(name))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tools::run;

    #[test]
    fn a_program_sees_the_folder_of_the_test_and_keeps_its_own_and_its_variables() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "of the test").unwrap();
        let namespace = Namespace::new(&[(folder.path(), "/var/lib")]);
        let mut shell = command("sh");
        shell
            .args(["-c", "cat /var/lib/file; printf ' %s' \"$WORD\" *"])
            .env("WORD", "word")
            .current_dir(folder.path());
        let seen = run(&mut namespace.enter(&shell));
        assert_eq!(String::from_utf8_lossy(&seen), "of the test word file");
        assert!(!Path::new("/var/lib/file").exists());
    }
}
