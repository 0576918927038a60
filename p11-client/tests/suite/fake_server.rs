//! A server for tests: requests of real clients on a real socket in, whatever the test wants out.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use p11_proto::{Request, Response, frame, tedge1};

/// What the server does with a request.
pub enum Reaction {
    Answer(Response),
    AnswerAndClose(Response),
    /// Bytes as they are, then closes.
    Bytes(Vec<u8>),
    /// Bytes one by one, with pauses.
    Trickle(Vec<u8>),
    Close,
    Silence,
}

/// Listens until it is dropped; then its connections are closed, and its socket is gone if it has
/// made it itself.
pub struct FakeServer {
    path: PathBuf,
    is_own: bool,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    react: Box<dyn Fn(Request) -> Reaction + Send + Sync>,
    stopping: AtomicBool,
    connections: AtomicUsize,
    probes: AtomicUsize,
    open: Mutex<Vec<UnixStream>>,
}

impl FakeServer {
    pub fn start(
        path: &Path,
        react: impl Fn(Request) -> Reaction + Send + Sync + 'static,
    ) -> FakeServer {
        let mut server = FakeServer::inheriting(UnixListener::bind(path).unwrap(), react);
        server.is_own = true;
        server
    }

    /// A server to which its socket was handed, as systemd does.
    pub fn inheriting(
        listener: UnixListener,
        react: impl Fn(Request) -> Reaction + Send + Sync + 'static,
    ) -> FakeServer {
        let path = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            react: Box::new(react),
            stopping: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        FakeServer {
            path: path.as_pathname().unwrap().to_owned(),
            is_own: false,
            shared: shared.clone(),
            accepting: Some(thread::spawn(move || accept(&listener, &shared))),
        }
    }

    /// How many connections there have been that spoke protocol 1.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How often a client has asked which protocol is spoken.
    pub fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::SeqCst)
    }

    /// Closes all connections, as a server may with idle ones.
    pub fn close_connections(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        if self.is_own {
            let _ = std::fs::remove_file(&self.path);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.close_connections();
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        shared
            .open
            .lock()
            .unwrap()
            .push(stream.try_clone().unwrap());
        let shared = shared.clone();
        thread::spawn(move || {
            serve(&stream, &shared);
            // The clone in `open` would keep the connection open.
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

fn serve(mut stream: &UnixStream, shared: &Shared) -> Option<()> {
    let mut first = [0; 1];
    stream.read_exact(&mut first).ok()?;
    if first == [tedge1::VERSION] {
        return answer_probe(stream, shared);
    }
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let mut rest = [0; 3];
    stream.read_exact(&mut rest).ok()?;
    assert_eq!([&first[..], &rest].concat(), frame::PREAMBLE);
    loop {
        let body = frame::read(&mut stream).ok()??;
        match (shared.react)(frame::decode(&body).unwrap()) {
            Reaction::Answer(response) => frame::write(&mut stream, &response).ok()?,
            Reaction::AnswerAndClose(response) => return frame::write(&mut stream, &response).ok(),
            Reaction::Bytes(bytes) => return stream.write_all(&bytes).ok(),
            Reaction::Trickle(bytes) => {
                for byte in bytes {
                    thread::sleep(Duration::from_millis(20));
                    stream.write_all(&[byte]).ok()?;
                }
            }
            Reaction::Close => return None,
            Reaction::Silence => return stream.read_to_end(&mut Vec::new()).ok().map(|_| ()),
        }
    }
}

fn answer_probe(mut stream: &UnixStream, shared: &Shared) -> Option<()> {
    let mut request = vec![tedge1::VERSION];
    stream.read_to_end(&mut request).ok()?;
    assert_eq!(
        tedge1::Request::decode(&request).unwrap(),
        tedge1::Request::Ping
    );
    shared.probes.fetch_add(1, Ordering::SeqCst);
    stream.write_all(&tedge1::pong_with_advertisement()).ok()
}
