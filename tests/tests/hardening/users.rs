//! A server and a user go in; a socket comes out through which everybody is that user.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use p11_tests::{process::Process, server::Server, wait::TIMEOUT};

/// A way to the server, as another user than the one who runs the test.
pub struct AsUser {
    process: Process,
    socket: PathBuf,
}

impl AsUser {
    /// Opens the server's socket for all users, and a way to it for one.
    pub fn new(server: &Server, uid: u32, gid: u32) -> Self {
        fs::set_permissions(server.folder(), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(server.socket(), Permissions::from_mode(0o666)).unwrap();
        let socket = server.folder().join(format!("as-{uid}-{gid}.sock"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_as-user"));
        command.args([uid.to_string(), gid.to_string()]);
        command.arg(&socket).arg(server.socket());
        let process = Process::start("as-user", command);
        process.wait_for_log("ready", TIMEOUT);
        Self { process, socket }
    }

    /// The socket to connect to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process that the server sees.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
