//! A server that behaves as released ones do: it speaks tedge1 alone, reads a connection to its end, answers, and only
//! then takes the next. A server of today does its work.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use tempfile::TempDir;

use crate::server::Server;

/// The first byte of each tedge1 message.
const VERSION: u8 = 0;
/// Two messages without fields.
const PING: [u8; 2] = [VERSION, 8];
const PONG: [u8; 2] = [VERSION, 9];
/// The number of the message that holds a text about a failure.
const ERROR: u8 = 0;

/// A running server of the old kind, gone when dropped.
pub struct OldServer {
    socket: PathBuf,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
    _folder: TempDir,
}

struct Shared {
    /// The socket of the server that does the work.
    behind: PathBuf,
    over: AtomicBool,
    asked: Mutex<Vec<u8>>,
}

impl OldServer {
    /// Starts one before a server of today.
    pub fn before(server: &Server) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("old.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let shared = Arc::new(Shared {
            behind: server.socket().into(),
            over: AtomicBool::new(false),
            asked: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        Self {
            socket,
            shared,
            serving: Some(thread::spawn(move || serving.serve(&listener))),
            _folder: folder,
        }
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The numbers of the messages that were asked since this was called last.
    pub fn asked(&self) -> Vec<u8> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes it up.
        let _ = UnixStream::connect(&self.socket);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

impl Shared {
    fn serve(&self, listener: &UnixListener) {
        for stream in listener.incoming() {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            // A client that is gone is no matter.
            if stream.read_to_end(&mut request).is_ok() {
                let _ = stream.write_all(&self.answer(&request));
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }

    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let [VERSION, number, ..] = request else {
            let text = "Failed to parse the received frame";
            return [&[VERSION, ERROR, text.len() as u8], text.as_bytes()].concat();
        };
        self.asked.lock().unwrap().push(*number);
        if request == PING {
            return PONG.into();
        }
        let mut server = UnixStream::connect(&self.behind).unwrap();
        server.write_all(request).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        server.read_to_end(&mut reply).unwrap();
        reply
    }
}
