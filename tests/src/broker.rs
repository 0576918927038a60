//! A mosquitto that lets in only clients with a certificate of an authority, and names them in its log.

use std::{
    fs,
    net::{TcpListener, TcpStream},
};

use tempfile::TempDir;

use crate::{
    pki::Pki,
    process::Process,
    tools::command,
    wait::{TIMEOUT, is_soon},
};

/// A running broker on a loopback port of its own.
pub struct Broker {
    process: Process,
    port: u16,
    _folder: TempDir,
}

impl Broker {
    /// Starts a broker that takes the TLS versions it takes by default, 1.2 and 1.3.
    pub fn start(pki: &Pki) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let configuration = folder.path().join("mosquitto.conf");
        let server = pki.server();
        let port = free_port();
        // As root mosquitto would become the user "mosquitto", who may not read our files.
        let text = format!(
            "listener {port} 127.0.0.1\n\
             cafile {authority}\n\
             certfile {certificate}\n\
             keyfile {key}\n\
             require_certificate true\n\
             use_identity_as_username true\n\
             user root\n\
             log_dest stderr\n\
             log_type all\n",
            authority = pki.authority().display(),
            certificate = server.certificate.display(),
            key = server.private_key.display(),
        );
        fs::write(&configuration, text).unwrap();
        let mut mosquitto = command("mosquitto");
        mosquitto.arg("-c").arg(&configuration);
        let mut broker = Self {
            process: Process::start("mosquitto", mosquitto),
            port,
            _folder: folder,
        };
        broker.wait_until_listening();
        broker
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until the log contains `text` and returns the first line with it.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.process.wait_for_log(text, TIMEOUT)
    }

    fn wait_until_listening(&mut self) {
        let mut listens = false;
        is_soon(|| {
            listens = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            listens || !self.process.is_running()
        });
        assert!(
            listens,
            "mosquitto does not listen; it said:\n{}",
            self.log()
        );
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
