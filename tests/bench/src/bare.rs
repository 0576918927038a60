//! The bare signer, the least that a signer in another process costs: messages of a fixed size, one session, two
//! calls; over a kept connection, or over a new one for each signature.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use crate::pkcs11::Module;
use crate::signers::PIN;

/// What is answered without a signature, as a Ping is.
pub const PING: [u8; 32] = [0; 32];

/// Serves digests to sign until it is killed: a thread and a session for each connection, and one of both for all
/// connections to the second socket.
pub fn serve(socket: &Path, module: &Path) {
    let module = Module::load(module);
    let mut signer = module.signer(PIN);
    let listener = UnixListener::bind(socket.with_extension("each")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut digest = [0; 32];
            stream.read_exact(&mut digest).unwrap();
            let answer = if digest == PING {
                [0; 64]
            } else {
                signer.sign(&digest)
            };
            stream.write_all(&answer).unwrap();
        }
    });
    for stream in UnixListener::bind(socket).unwrap().incoming() {
        let mut stream = stream.unwrap();
        let mut signer = module.signer(PIN);
        thread::spawn(move || {
            let mut digest = [0; 32];
            while stream.read_exact(&mut digest).is_ok() {
                stream.write_all(&signer.sign(&digest)).unwrap();
            }
        });
    }
}

/// The other end.
pub struct Client(UnixStream);

impl Client {
    /// Connects.
    pub fn connect(socket: &Path) -> Client {
        Client(UnixStream::connect(socket).unwrap())
    }

    /// One signature.
    pub fn sign(&mut self, digest: &[u8; 32]) -> [u8; 64] {
        let mut signature = [0; 64];
        self.0.write_all(digest).unwrap();
        self.0.read_exact(&mut signature).unwrap();
        signature
    }
}
