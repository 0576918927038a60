//! A socket goes in; a client comes out that says what no library would.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use p11_client::UriText;
use p11_proto::{
    Request, Response, frame,
    message::{
        ByteBuf, ChangePin, CreateKey, DeleteKey, GetCertificates, GetPublicKey, GetStatus,
        ImportCertificate, InitToken, KeySpec, KeyType, ListKeys, ListTokens, Message, OpenKey,
        Ping, Sign,
    },
    tedge1,
};
use p11_tests::process::TIMEOUT;

/// One connection of protocol 1, or of none.
pub struct RawClient(pub UnixStream);

impl RawClient {
    /// Connects and says nothing.
    pub fn silent(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the server listens");
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(stream)
    }

    /// Connects and says that it speaks protocol 1.
    pub fn greeted(socket: &Path) -> Self {
        let mut raw = Self::silent(socket);
        // A server that has no place for us may be gone by now.
        let _ = raw.0.write_all(&frame::PREAMBLE);
        raw
    }

    /// Connects, and has a place: it was answered.
    pub fn served(socket: &Path) -> Self {
        let mut raw = Self::greeted(socket);
        assert!(raw.ping(), "no place");
        raw
    }

    /// Sends a request and waits for nothing.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        self.0.write_all(&frame::encode(request).unwrap())
    }

    /// The next answer; none when the server has closed the connection.
    pub fn answer(&mut self) -> Option<Response> {
        let body = frame::read(&mut self.0).ok()??;
        Some(frame::decode(&body).unwrap())
    }

    /// One request and its answer.
    pub fn ask(&mut self, request: &Request) -> Option<Response> {
        self.send(request).ok()?;
        self.answer()
    }

    /// Whether the server answers.
    pub fn ping(&mut self) -> bool {
        matches!(
            self.ask(&Request::Ping(Ping::default())),
            Some(Response::Pong(_))
        )
    }

    /// Whether the server has closed the connection, or does so in a moment.
    pub fn is_closed(&mut self) -> bool {
        let moment = Duration::from_millis(200);
        self.0.set_read_timeout(Some(moment)).unwrap();
        let end = self.0.read(&mut [0]);
        self.0.set_read_timeout(Some(TIMEOUT)).unwrap();
        match end {
            Ok(0) => true,
            Ok(_) => panic!("it said something"),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// One request of an old client, on a connection of its own.
pub fn ask_tedge1(socket: &Path, request: &tedge1::Request) -> tedge1::Response {
    let mut raw = RawClient::silent(socket);
    raw.0.write_all(&request.encode().unwrap()).unwrap();
    raw.0.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    raw.0.read_to_end(&mut answer).unwrap();
    tedge1::Response::decode(&answer).unwrap()
}

/// One request of each kind, for a token that does not exist.
pub fn every_request() -> Vec<Request> {
    let uri = || UriText::from("pkcs11:token=nowhere;object=nothing");
    let bytes = || ByteBuf::from(vec![7; 32]);
    let all = vec![
        Request::Ping(Ping::default()),
        Request::Status(GetStatus::default()),
        Request::OpenKey(OpenKey::new(uri())),
        Request::Sign(Sign::new(
            uri(),
            0x0403,
            bytes(),
            p11_client::Identity::of(NOBODYS_KEY).unwrap(),
        )),
        Request::ListTokens(ListTokens::default()),
        Request::ListKeys(ListKeys::new(uri())),
        Request::GetPublicKey(GetPublicKey::new(uri())),
        Request::GetCertificates(GetCertificates::new(uri())),
        Request::ImportCertificate(ImportCertificate::new(uri(), bytes())),
        Request::CreateKey(CreateKey::new(uri(), KeySpec::new(KeyType::Ec, 256), "new")),
        Request::DeleteKey(DeleteKey::new(uri())),
        Request::InitToken(InitToken::new("new").uri(uri())),
        Request::ChangePin(ChangePin::new("13579135").uri(uri())),
    ];
    assert_eq!(all.len(), Request::NAMES.len(), "one is missing");
    all
}

/// An Ed25519 public key (RFC 8410 section 4) of which nobody has the private half.
const NOBODYS_KEY: &[u8] =
    b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00a public key of some 32 bytes...";

/// Waits until it is so; fails if it never is.
#[track_caller]
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < end, "it never came to be");
        std::thread::sleep(Duration::from_millis(5));
    }
}
