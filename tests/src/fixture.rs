//! A kind of key goes in; a token that holds it comes out, behind a module that misbehaves on demand,
//! and callers of the server that loads this module.
//!
//! ```no_run
//! use p11_fault_module::{Function::C_Sign, cryptoki_sys::CKR_DEVICE_ERROR, on};
//! use p11_tests::{keys::KeyKind, fixture::{TestClient, KEY, Fixture}};
//!
//! let fixture = Fixture::new(KeyKind::P256);
//! let server = fixture.start();
//! let key = TestClient::of(&server).open(KEY).unwrap();
//! fixture.faults.set([on(C_Sign).next(1).returns(CKR_DEVICE_ERROR)]);
//! key.sign().unwrap(); // and the signature was verified
//! ```

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use p11_client::{Client, Config, ErrorCode, Failure, Pin, message};
use p11_fault_module::Faults;
use p11_proto::{
    Request, Response, frame,
    message::{GetStatus, OpenKey, Sign, Status},
};

use crate::{
    keys::{Key, KeyKind, KeySpec},
    server::{Builder, Server},
    softhsm::{SoftHsm, Token},
    verify::verifies,
};

/// The user PIN of every token of a fixture. No six digits: a busy server's log has timestamps with them.
pub const PIN: &str = "open-sesame";
/// The security officer's PIN of every token of a fixture.
pub const SO_PIN: &str = "open-barley";
/// What leads to the key of a new fixture.
pub const KEY: &str = "pkcs11:token=device;object=key";

/// A token store and the faults of the module that is loaded in place of SoftHSM.
pub struct Fixture {
    /// Where tokens and keys are made, by SoftHSM itself, which knows of no faults.
    pub hsm: SoftHsm,
    /// What goes wrong in the server.
    pub faults: Faults,
    /// The token `device`.
    pub token: Token,
    /// The key `key` in it, of id 1.
    pub key: Key,
}

impl Fixture {
    /// A token with one key, and no faults yet.
    pub fn new(kind: KeyKind) -> Self {
        let hsm = SoftHsm::new();
        let token = hsm.init_token("device", PIN, SO_PIN);
        let key = hsm.generate(&token, &KeySpec::new(kind, "key", &[1]));
        let faults = Faults::new(hsm.module());
        Self {
            hsm,
            faults,
            token,
            key,
        }
    }

    /// One more token, with a P-256 key `key` of id 1 too.
    pub fn add_token(&self, label: &str) -> (Token, Key) {
        let token = self.hsm.init_token(label, PIN, SO_PIN);
        let key = self
            .hsm
            .generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
        (token, key)
    }

    /// Fills the token with key pairs of another label, until it holds this many objects.
    pub fn fill(&self, objects: usize) {
        let before = self.object_files();
        let other = KeySpec::new(KeyKind::P256, "other", &[2]);
        self.hsm.generate(&self.token, &other);
        let pair: Vec<_> = self.object_files().difference(&before).cloned().collect();
        // SoftHSM takes every file of this name for an object, and none knows its own name.
        for (number, file) in (before.len() + pair.len()..objects).zip(pair.iter().cycle()) {
            fs::copy(file, file.with_file_name(format!("copy-{number}.object"))).unwrap();
        }
        assert_eq!(self.object_files().len(), objects);
    }

    fn object_files(&self) -> BTreeSet<PathBuf> {
        let [(_, configuration)] = self.hsm.envs();
        let tokens = configuration.with_file_name("tokens");
        let mut folders = fs::read_dir(tokens).unwrap();
        let token = folders.next().expect("one token").unwrap().path();
        assert!(folders.next().is_none(), "only a single token is filled");
        let files = fs::read_dir(token)
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .filter(|file| file.extension() == Some("object".as_ref()))
            .filter(|file| file.file_name() != Some("token.object".as_ref()))
            .collect()
    }

    /// A server that loads the faulty module and has no PIN yet.
    pub fn server(&self) -> Builder {
        Server::builder().softhsm_with_faults(&self.hsm, &self.faults)
    }

    /// A running server with the right PIN.
    pub fn start(&self) -> Server {
        self.server().pin(PIN).start()
    }
}

/// A program that uses the server, with connections of its own.
#[derive(Clone)]
pub struct TestClient {
    client: Client,
    socket: PathBuf,
}

impl TestClient {
    /// A client that has not connected yet.
    pub fn of(server: &Server) -> Self {
        Self::at(server.socket())
    }

    /// The same, on any way to the server.
    pub fn at(socket: &Path) -> Self {
        Self {
            client: Client::new(Config::new(socket)),
            socket: socket.into(),
        }
    }

    /// Opens the key that a URI means.
    pub fn open(&self, uri: &str) -> Result<ClientKey, Failure> {
        self.open_with(uri, None)
    }

    /// The same, with a PIN for this and every later request about the key.
    pub fn open_with(&self, uri: &str, pin: Option<&str>) -> Result<ClientKey, Failure> {
        let pin = pin.map(Pin::from);
        let request = OpenKey::new(uri).pin(pin.clone());
        let told = self.client.open_key(request).map_err(failure)?;
        Ok(ClientKey {
            client: self.client.clone(),
            uri: uri.into(),
            pin,
            told,
        })
    }

    /// What the server says of itself.
    pub fn status(&self) -> Status {
        match self.ask(&Request::Status(GetStatus::default())) {
            Response::Status(status) => status,
            other => panic!("no status but {other:?}"),
        }
    }

    /// One request on a connection of its own, sent once.
    pub fn ask(&self, request: &Request) -> Response {
        let mut stream = UnixStream::connect(&self.socket).expect("the server listens");
        stream.write_all(&frame::PREAMBLE).unwrap();
        frame::write(&mut stream, request).unwrap();
        let body = frame::read(&mut stream).unwrap().expect("an answer");
        frame::decode(&body).unwrap()
    }
}

/// A key as a client knows it.
#[derive(Clone)]
pub struct ClientKey {
    client: Client,
    uri: String,
    pin: Option<Pin>,
    told: message::OpenedKey,
}

impl ClientKey {
    /// What the server told of it.
    pub fn told(&self) -> &message::OpenedKey {
        &self.told
    }

    /// Has a new message signed with the first scheme, and the signature verified against the public
    /// key that the server told when the key was opened.
    pub fn sign(&self) -> Result<(), Failure> {
        self.sign_with(self.told.schemes[0])
    }

    /// The same with a scheme.
    pub fn sign_with(&self, scheme: u16) -> Result<(), Failure> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let message = format!("message {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let request = Sign::new(
            self.uri.as_str(),
            scheme,
            message.clone().into_bytes(),
            self.told.identity,
        )
        .pin(self.pin.clone());
        let signature = self.client.sign(request).map_err(failure)?;
        assert!(
            verifies(&self.told.spki, scheme, message.as_bytes(), &signature),
            "a signature of another key or message: {}, {scheme:#06x}",
            self.told.uri
        );
        Ok(())
    }
}

/// Says that it is over when it is dropped: threads that work until then end also where a test fails.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The failure in a result; panics if it is of another kind, or none.
#[track_caller]
pub fn refused<T>(result: Result<T, Failure>, code: ErrorCode) -> Failure {
    match result {
        Err(failure) if failure.code == code => failure,
        Err(other) => panic!("{code} was due, not {}: {other}", other.code),
        Ok(_) => panic!("{code} was due, and the request succeeded"),
    }
}

/// What the server answered; panics where it did not answer.
#[track_caller]
pub fn failure(error: p11_client::Error) -> Failure {
    match error {
        p11_client::Error::Server(failure) => failure,
        other => panic!("the server did not answer: {other}"),
    }
}
