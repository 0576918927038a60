//! An old server for tests: it speaks tedge1 alone, has one connection at a time, and reads each to
//! its end before it answers.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use p11_proto::tedge1::{Algorithm, ChooseScheme, ChosenScheme, Request, Response, legacy_pem};
use rustls::SignatureScheme;

use crate::fake_token::TestKey;

/// Listens until it is dropped; then its socket is gone.
pub struct OldServer {
    path: PathBuf,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

type Answer = dyn Fn(&Request) -> Option<Response> + Send + Sync;

struct Shared {
    answer: Box<Answer>,
    stopping: AtomicBool,
    requests: Mutex<Vec<Request>>,
}

impl OldServer {
    /// Where there is no answer it closes, as old servers do with what they do not know.
    pub fn start(
        path: &Path,
        answer: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
    ) -> OldServer {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            stopping: AtomicBool::new(false),
            requests: Mutex::default(),
        });
        OldServer {
            path: path.to_owned(),
            shared: shared.clone(),
            serving: Some(thread::spawn(move || serve(&listener, &shared))),
        }
    }

    /// One that signs with this key.
    pub fn with(path: &Path, key: &TestKey) -> OldServer {
        let key = key.clone();
        OldServer::start(path, move |request| key.answer_in_tedge1(request))
    }

    /// What was asked since this was called last.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

fn serve(listener: &UnixListener, shared: &Shared) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let mut bytes = Vec::new();
        if stream.read_to_end(&mut bytes).is_err() {
            continue;
        }
        let request = Request::decode(&bytes).unwrap();
        shared.requests.lock().unwrap().push(request.clone());
        let answer = match request {
            Request::Ping => Some(Response::Pong),
            request => (shared.answer)(&request),
        };
        if let Some(answer) = answer {
            let _ = stream.write_all(&answer.encode().unwrap());
        }
    }
}

impl TestKey {
    /// What an old server answers that has this key, and no other.
    pub fn answer_in_tedge1(&self, request: &Request) -> Option<Response> {
        Some(match request {
            Request::ChooseScheme(choose) => Response::ChooseScheme(self.choose(choose)),
            Request::GetPublicKeyPem(_) => Response::GetPublicKeyPem(legacy_pem(&self.public)),
            Request::SignWithSigScheme(sign) => {
                let scheme = p11_proto::Scheme::from(sign.sigscheme.unwrap());
                let signature = self.signature(scheme.number(), &sign.to_sign.0);
                Response::Sign(signature.into())
            }
            Request::Sign(sign) => {
                let signature = self.signature(self.schemes[0].into(), &sign.to_sign.0);
                Response::Sign(signature.into())
            }
            _ => return None,
        })
    }

    fn choose(&self, request: &ChooseScheme) -> ChosenScheme {
        // Old servers know no other schemes of an RSA key.
        let no_other = [
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PKCS1_SHA256,
        ];
        let is_rsa = self.schemes.len() > 1;
        let mut schemes = self
            .schemes
            .iter()
            .filter(|s| !is_rsa || no_other.contains(s));
        let scheme = schemes.find(|scheme| request.offered.contains(&u16::from(**scheme)));
        ChosenScheme {
            scheme: scheme.map(|scheme| u16::from(*scheme)),
            algorithm: match self.schemes[0] {
                SignatureScheme::ED25519 => Algorithm::Ed25519,
                _ if is_rsa => Algorithm::Rsa,
                _ => Algorithm::Ecdsa,
            },
        }
    }
}
