//! A service without a token: it signs by repeating the message, with the delays and panics that a test
//! asks for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

#[cfg(test)]
use p11_proto::Identity;
use p11_proto::message::{
    Certificates, Class, Deleted, Imported, KeyType, ObjectEntry, Objects, OpenedKey, PinChanged,
    Pong, PublicKeyEntry, Signature, Status, TokenReady, Tokens,
};
use p11_proto::{Request, Response, Scheme, spki};

use crate::error::Error;
use crate::service::{Access, Service};

/// The message whose signing panics.
pub const PANIC: &[u8] = b"panic";
/// The message whose signing lasts until [`Fake::release`].
pub const WAIT: &[u8] = b"wait";

/// The message whose signing lasts until its client has left.
pub const LEAVE: &[u8] = b"leave";

/// The URI whose listing fills most of a frame.
pub const LONG: &str = "pkcs11:object=long";

/// A service that signs by repeating the message.
#[derive(Default)]
pub struct Fake {
    /// Whether [`PANIC`], [`WAIT`], [`LEAVE`] and [`LONG`] mean anything. A fuzzer finds them.
    obeys: bool,
    waiting: AtomicUsize,
    may_go: Mutex<bool>,
    gone: Condvar,
}

impl Fake {
    /// A service that panics and waits as a test wants it.
    #[cfg(test)]
    pub fn obedient() -> Fake {
        Fake {
            obeys: true,
            ..Fake::default()
        }
    }

    /// Ends all that waits and will wait.
    #[cfg(test)]
    pub fn release(&self) {
        *self.may_go.lock().expect("no panic under the lock") = true;
        self.gone.notify_all();
    }

    /// How many signatures wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

/// An Ed25519 public key (RFC 8410 section 4), as good as any other.
const SPKI: &[u8; 44] =
    b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00a public key of some 32 bytes...";

fn public_key() -> spki::PublicKey {
    spki::PublicKey::from_spki(SPKI).expect("a public key")
}

/// Which key it is that signs.
#[cfg(test)]
pub fn identity() -> Identity {
    public_key().identity()
}

impl Service for Fake {
    fn call(&self, request: &Request, access: &dyn Access) -> Result<Response, Error> {
        let key = "pkcs11:token=t;object=k";
        let public = public_key();
        Ok(match request {
            Request::Ping(_) => Response::Pong(Pong::new("fake", 1)),
            Request::Status(_) => Response::Status(Status::new("fake", true)),
            Request::OpenKey(_) => Response::Key(OpenedKey::new(key, &public, [Scheme::Ed25519])),
            Request::Sign(sign) => {
                Response::Signature(Signature::new(self.sign(&sign.message, access)))
            }
            Request::ListTokens(_) => Response::Tokens(Tokens::new(Vec::new())),
            Request::ListKeys(list) if self.obeys && *list.uri == *LONG => {
                let label = "x".repeat(900_000);
                let object = ObjectEntry::new(Class::Public, KeyType::Rsa, label, Vec::new(), key);
                Response::Objects(Objects::new(vec![object]))
            }
            Request::ListKeys(_) => Response::Objects(Objects::new(Vec::new())),
            Request::GetCertificates(_) => Response::Certificates(Certificates::new(Vec::new())),
            Request::ImportCertificate(_) => Response::Imported(Imported::new(key)),
            Request::DeleteKey(_) | Request::DeleteCertificate(_) => {
                Response::Deleted(Deleted::new(Vec::new()))
            }
            Request::InitToken(_) => Response::TokenReady(TokenReady::new("pkcs11:token=t", true)),
            Request::ChangePin(_) => Response::PinChanged(PinChanged::new("pkcs11:token=t")),
            _ => Response::PublicKey(PublicKeyEntry::new(key, &public)),
        })
    }
}

impl Fake {
    fn sign(&self, message: &[u8], access: &dyn Access) -> Vec<u8> {
        let is_told = |word| self.obeys && message == word;
        assert!(!is_told(PANIC), "as the test wants it");
        if is_told(WAIT) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let may_go = self.may_go.lock().expect("no panic under the lock");
            let waited = self.gone.wait_while(may_go, |may_go| !*may_go);
            drop(waited.expect("no panic under the lock"));
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        if is_told(LEAVE) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            while !access.has_left() {
                thread::sleep(Duration::from_millis(1));
            }
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        message.to_vec()
    }
}
