//! A service without a token: requests go in, made-up answers come out, with the delays and panics
//! that a test asks for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use p11_proto::Identity;
use p11_proto::message::{
    Certificate, ChangePin, CreateKey, DeleteKey, GetCertificates, GetPublicKey, ImportCertificate,
    InitToken, Key, KeyType, ListKeys, Object, OpenKey, PinChanged, PublicKey, Token, TokenReady,
};
use p11_server::service::{Access, SignRequest, Signed};
use p11_server::{Error, Service};

/// The message whose signing panics.
pub const PANIC: &[u8] = b"panic";
/// The message whose signing lasts until [`Fake::let_go`].
pub const WAIT: &[u8] = b"wait";

/// A service that signs by repeating the message.
#[derive(Default)]
pub struct Fake {
    /// Whether [`PANIC`] and [`WAIT`] mean anything. A fuzzer finds both.
    obeys: bool,
    waiting: AtomicUsize,
    may_go: Mutex<bool>,
    gone: Condvar,
}

impl Fake {
    /// A service that panics and waits as a test wants it.
    pub fn obedient() -> Fake {
        Fake {
            obeys: true,
            ..Fake::default()
        }
    }

    /// Ends all that waits and will wait.
    pub fn let_go(&self) {
        *self.may_go.lock().expect("no panic under the lock") = true;
        self.gone.notify_all();
    }

    /// How many signatures wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

/// An Ed25519 public key (RFC 8410 section 4), as good as any other.
const SPKI: &[u8; 44] =
    b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00a public key of some 32 bytes...";

fn key() -> Arc<Key> {
    Arc::new(Key {
        uri: "pkcs11:token=t;object=k".into(),
        key_type: KeyType::Ed25519,
        bits: 255,
        schemes: vec![0x0807],
        spki: SPKI.to_vec().into(),
        identity: identity(),
    })
}

fn public_key() -> PublicKey {
    PublicKey {
        uri: "pkcs11:token=t;object=k".into(),
        key_type: KeyType::Ed25519,
        bits: 255,
        spki: SPKI.to_vec().into(),
        identity: identity(),
    }
}

/// Which key it is that signs.
pub fn identity() -> Identity {
    Identity::of(SPKI).expect("a public key")
}

impl Service for Fake {
    fn trouble(&self) -> Option<String> {
        None
    }

    fn open_key(&self, _: &OpenKey, _: &dyn Access) -> Result<Arc<Key>, Error> {
        Ok(key())
    }

    fn sign(&self, request: &SignRequest<'_>, _: &dyn Access) -> Result<Signed, Error> {
        let is_told = |word| self.obeys && request.message == word;
        assert!(!is_told(PANIC), "as the test wants it");
        if is_told(WAIT) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let may_go = self.may_go.lock().expect("no panic under the lock");
            let waited = self.gone.wait_while(may_go, |may_go| !*may_go);
            drop(waited.expect("no panic under the lock"));
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(Signed {
            signature: request.message.to_vec(),
            key: key(),
        })
    }

    fn list_tokens(&self, _: &dyn Access) -> Result<Vec<Token>, Error> {
        Ok(Vec::new())
    }

    fn list_keys(&self, _: &ListKeys, _: &dyn Access) -> Result<Vec<Object>, Error> {
        Ok(Vec::new())
    }

    fn public_key(&self, _: &GetPublicKey, _: &dyn Access) -> Result<PublicKey, Error> {
        Ok(public_key())
    }

    fn certificates(&self, _: &GetCertificates, _: &dyn Access) -> Result<Vec<Certificate>, Error> {
        Ok(Vec::new())
    }

    fn import_certificate(&self, _: &ImportCertificate, _: &dyn Access) -> Result<String, Error> {
        Ok("pkcs11:token=t;object=k;type=cert".into())
    }

    fn create_key(&self, _: &CreateKey, _: &dyn Access) -> Result<PublicKey, Error> {
        Ok(public_key())
    }

    fn delete_key(&self, _: &DeleteKey, _: bool, _: &dyn Access) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    fn init_token(&self, _: &InitToken, _: &dyn Access) -> Result<TokenReady, Error> {
        Ok(TokenReady {
            uri: "pkcs11:token=t".into(),
            created: true,
        })
    }

    fn change_pin(&self, _: &ChangePin, _: &dyn Access) -> Result<PinChanged, Error> {
        Ok(PinChanged {
            uri: "pkcs11:token=t".into(),
            stale: None,
        })
    }
}
