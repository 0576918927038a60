//! A server for tests on a real socket: records the requests and answers as the test wants.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use p11_client::{Client, Config, SigningKey};
use p11_proto::{Request, Response, frame, tedge1};
use tempfile::TempDir;

/// For deadlines, and for how long tests wait for what must not happen.
pub const SHORT: Duration = Duration::from_millis(200);

/// The path of a socket in a temporary folder.
pub struct TempSocket {
    pub path: PathBuf,
    _folder: TempDir,
}

/// What a server does with a request of protocol 1.
pub enum Reaction {
    Answer(Response),
    AnswerAndClose(Response),
    /// Sends these bytes and closes.
    Bytes(&'static [u8]),
    /// Sends these bytes one by one, with pauses.
    Trickle(Vec<u8>),
    Close,
    Silence,
}

impl From<Response> for Reaction {
    fn from(response: Response) -> Self {
        Reaction::Answer(response)
    }
}

/// Listens until it is dropped. Then its connections are closed and its socket is gone, and a connection on which
/// something was wrong fails the test.
pub struct FakeServer {
    path: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<Vec<JoinHandle<()>>>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
    connections: AtomicUsize,
    probes: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    old_requests: Mutex<Vec<tedge1::Request>>,
}

impl TempSocket {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("p11.sock");
        let _folder = folder;
        TempSocket { path, _folder }
    }

    pub fn config(&self) -> Config {
        Config::new(&self.path)
    }

    pub fn client(&self) -> Client {
        Client::new(self.config())
    }

    pub fn open(&self, uri: &str) -> SigningKey {
        SigningKey::open(&self.client(), uri, None, None).unwrap()
    }

    pub fn bind(&self) -> UnixListener {
        UnixListener::bind(&self.path).unwrap()
    }

    /// A server of protocol 1, which answers the Ping of tedge1 as well.
    pub fn serve<R: Into<Reaction>>(
        &self,
        react: impl Fn(Request) -> R + Send + Sync + 'static,
    ) -> FakeServer {
        self.start(move |stream, shared| {
            serve(stream, shared, &|r| react(r).into());
        })
    }

    /// A server of tedge1 alone. Without an answer it closes, as old servers do with requests that
    /// they do not know.
    pub fn serve_old(
        &self,
        answer: impl Fn(&tedge1::Request) -> Option<tedge1::Response> + Send + Sync + 'static,
    ) -> FakeServer {
        self.start(move |stream, shared| {
            serve_old(stream, shared, &answer);
        })
    }

    /// A server that does this with each connection and then closes it.
    pub fn serve_raw(&self, handle: impl Fn(&UnixStream) + Send + Sync + 'static) -> FakeServer {
        self.start(move |stream, _| handle(stream))
    }

    fn start(&self, handle: impl Fn(&UnixStream, &Shared) + Send + Sync + 'static) -> FakeServer {
        let listener = self.bind();
        let shared = Arc::<Shared>::default();
        let (path, accepted) = (self.path.clone(), shared.clone());
        let accepting = thread::spawn(move || accept(&listener, &accepted, &Arc::new(handle)));
        FakeServer {
            path,
            shared,
            accepting: Some(accepting),
        }
    }
}

impl FakeServer {
    /// How many connections spoke protocol 1.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How often a client has asked a server of protocol 1 what it speaks.
    pub fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::SeqCst)
    }

    /// The requests of protocol 1 since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }

    /// The requests to an old server since the last call.
    pub fn take_old_requests(&self) -> Vec<tedge1::Request> {
        std::mem::take(&mut self.shared.old_requests.lock().unwrap())
    }

    /// The names of [`FakeServer::take_old_requests`].
    pub fn take_old_names(&self) -> Vec<&'static str> {
        let requests = self.take_old_requests();
        requests.iter().map(tedge1::Request::name).collect()
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
        let _ = std::fs::remove_file(&self.path);
        let handlers = self.accepting.take().map(JoinHandle::join);
        self.close_connections();
        for handler in handlers.into_iter().flatten().flatten() {
            let ended = handler.join();
            assert!(thread::panicking() || ended.is_ok(), "see above");
        }
    }
}

/// The threads of the connections.
fn accept<H>(listener: &UnixListener, shared: &Arc<Shared>, handle: &Arc<H>) -> Vec<JoinHandle<()>>
where
    H: Fn(&UnixStream, &Shared) + Send + Sync + 'static,
{
    let mut handlers = Vec::new();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let copy = stream.try_clone().unwrap();
        shared.open.lock().unwrap().push(copy);
        let (shared, handle) = (shared.clone(), handle.clone());
        handlers.push(thread::spawn(move || {
            handle(&stream, &shared);
            // The copy would keep the connection open.
            let _ = stream.shutdown(Shutdown::Both);
        }));
    }
    handlers
}

fn serve(
    mut stream: &UnixStream,
    shared: &Shared,
    react: &dyn Fn(Request) -> Reaction,
) -> Option<()> {
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
        let request: Request = frame::decode(&body).unwrap();
        shared.requests.lock().unwrap().push(request.clone());
        match react(request) {
            Reaction::Answer(response) => frame::write(&mut stream, &response).ok()?,
            Reaction::AnswerAndClose(response) => return frame::write(&mut stream, &response).ok(),
            Reaction::Bytes(bytes) => return stream.write_all(bytes).ok(),
            Reaction::Trickle(bytes) => {
                for byte in bytes {
                    thread::sleep(Duration::from_millis(20));
                    stream.write_all(&[byte]).ok()?;
                }
            }
            Reaction::Close => return None,
            Reaction::Silence => return stream.read_to_end(&mut Vec::new()).ok().map(drop),
        }
    }
}

fn answer_probe(mut stream: &UnixStream, shared: &Shared) -> Option<()> {
    let mut request = vec![tedge1::VERSION];
    stream.read_to_end(&mut request).ok()?;
    let request = tedge1::Request::decode(&request).unwrap();
    assert_eq!(request, tedge1::Request::Ping);
    shared.probes.fetch_add(1, Ordering::SeqCst);
    stream.write_all(&tedge1::pong_with_advertisement()).ok()
}

fn serve_old(
    mut stream: &UnixStream,
    shared: &Shared,
    answer: &dyn Fn(&tedge1::Request) -> Option<tedge1::Response>,
) -> Option<()> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let request = tedge1::Request::decode(&bytes).ok()?;
    shared.old_requests.lock().unwrap().push(request.clone());
    let answer = match request {
        tedge1::Request::Ping => tedge1::Response::Pong,
        request => answer(&request)?,
    };
    stream.write_all(&answer.encode().unwrap()).ok()
}
