//! A proxy to the server that runs as another user.

use std::{
    fs::{self, Permissions},
    ops::Deref,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{binary, client::TestClient, process::Process, server::Server, wait::TIMEOUT};

/// A client of the server that is another user than the one who runs the test.
pub struct AsUser {
    client: TestClient,
    process: Process,
    socket: PathBuf,
}

impl Deref for AsUser {
    type Target = TestClient;

    fn deref(&self) -> &TestClient {
        &self.client
    }
}

impl AsUser {
    /// Opens the server's socket for all users, and starts a proxy to it for one.
    pub fn new(server: &Server, uid: u32, gid: u32) -> Self {
        fs::set_permissions(server.folder(), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(server.socket(), Permissions::from_mode(0o666)).unwrap();
        let socket = server.folder().join(format!("as-{uid}-{gid}.sock"));
        let mut command = binary::of_tests("as-user");
        command.args([uid.to_string(), gid.to_string()]);
        command.arg(&socket).arg(server.socket());
        let process = Process::start("as-user", command);
        process.wait_for_log("ready", TIMEOUT);
        Self {
            client: TestClient::at(&socket),
            process,
            socket,
        }
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
