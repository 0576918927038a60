//! The server's process: its environment and its view of the file system, as far as this user may see them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// The first 15 bytes of its name, as the kernel keeps it.
const NAME: &str = "tedge-p11-serve";

#[derive(Clone, Debug)]
pub struct Process {
    folder: PathBuf,
    environment: HashMap<OsString, OsString>,
    arguments: Vec<OsString>,
}

impl Process {
    /// Who listens on the socket. None where that is another program, systemd for example, or in another namespace.
    pub fn at(socket: &Path) -> Option<Process> {
        let connection = UnixStream::connect(socket).ok()?;
        let peer = getsockopt(&connection, PeerCredentials).ok()?;
        Process::of(peer.pid())
    }

    pub fn of(pid: i32) -> Option<Process> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let arguments = strings(&fs::read(folder.join("cmdline")).ok()?);
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let program = arguments
            .first()
            .and_then(|first| Path::new(first).file_name());
        let is_named = program.is_some_and(|program| program == "tedge-p11-server");
        if !is_named && name.trim_end() != NAME {
            return None;
        }
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        let environment = strings(&environment).into_iter().filter_map(|variable| {
            let variable = variable.into_string().ok()?;
            let (name, value) = variable.split_once('=')?;
            Some((name.into(), value.into()))
        });
        Some(Process {
            folder,
            environment: environment.collect(),
            arguments: arguments.into_iter().skip(1).collect(),
        })
    }

    pub fn environment(&self) -> &HashMap<OsString, OsString> {
        &self.environment
    }

    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    pub fn current_dir(&self) -> PathBuf {
        self.folder.join("cwd")
    }

    pub fn variable(&self, name: &str) -> Option<String> {
        let value = self.environment.get(OsStr::new(name))?;
        value.clone().into_string().ok()
    }

    /// Where the server's view of a path is. Only root, and the server's own user, can look there.
    pub fn sees(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap_or(path);
        self.folder.join("root").join(inside)
    }

    /// Whether its view may be looked at.
    pub fn shows_files(&self) -> io::Result<()> {
        fs::metadata(self.folder.join("root/")).map(drop)
    }
}

/// Texts that end with a zero each.
fn strings(bytes: &[u8]) -> Vec<OsString> {
    let texts = bytes
        .split(|byte| *byte == 0)
        .filter(|text| !text.is_empty());
    texts
        .map(|text| OsString::from_vec(text.to_vec()))
        .collect()
}
