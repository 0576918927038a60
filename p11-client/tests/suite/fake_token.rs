//! A token for tests: a key in memory that answers `OpenKey` and `Sign`, and what it was asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use p11_client::message::{OpenKey, OpenedKey, Sign, Signature};
use p11_client::{Client, Config, ErrorCode, Failure};
use p11_proto::spki::PublicKey;
use p11_proto::{Request, Response, Scheme};
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;
use tempfile::TempDir;

use crate::fake_server::{FakeServer, Reaction};

/// The URI that the token gives its key.
pub const FULL_URI: &str = "pkcs11:token=t;serial=1;object=k;id=%01";

/// A token with one key, the server in front of it and a client of that.
pub struct Token {
    pub client: Client,
    state: Arc<State>,
    socket: PathBuf,
    _server: FakeServer,
    _folder: TempDir,
}

struct State {
    key: Mutex<TestKey>,
    requests: Mutex<Vec<Request>>,
}

impl Token {
    pub fn with(key: &TestKey) -> Token {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("p11.sock");
        let state = Arc::new(State {
            key: Mutex::new(key.clone()),
            requests: Mutex::default(),
        });
        let serving = state.clone();
        Token {
            client: Client::new(Config::new(&socket)),
            state,
            _server: FakeServer::start(&socket, move |request| {
                Reaction::Answer(serving.answer(request))
            }),
            socket,
            _folder: folder,
        }
    }

    pub fn replace_key(&self, key: &TestKey) {
        *self.state.key.lock().unwrap() = key.clone();
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What was asked since this was called last.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }
}

impl State {
    fn answer(&self, request: Request) -> Response {
        self.requests.lock().unwrap().push(request.clone());
        self.key.lock().unwrap().answer(request)
    }
}

/// A key pair with a self-signed certificate.
#[derive(Clone)]
pub struct TestKey {
    pub certificate: CertificateDer<'static>,
    pub public: PublicKey,
    pub schemes: Vec<SignatureScheme>,
    signer: Arc<dyn SigningKey>,
}

impl TestKey {
    pub fn p256() -> TestKey {
        Self::generated(
            &rcgen::PKCS_ECDSA_P256_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
        )
    }

    pub fn p384() -> TestKey {
        Self::generated(
            &rcgen::PKCS_ECDSA_P384_SHA384,
            SignatureScheme::ECDSA_NISTP384_SHA384,
        )
    }

    pub fn ed25519() -> TestKey {
        Self::generated(&rcgen::PKCS_ED25519, SignatureScheme::ED25519)
    }

    pub fn rsa() -> TestKey {
        let schemes = [
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
        ];
        Self::certified(
            include_bytes!("data/rsa.pk8"),
            &rcgen::PKCS_RSA_SHA256,
            &schemes,
        )
    }

    /// A P-256 key whose certificate is X.509 version 1.
    pub fn with_v1_certificate() -> TestKey {
        Self::new(
            include_bytes!("data/v1.pk8"),
            CertificateDer::from_slice(include_bytes!("data/v1.crt")),
            &[SignatureScheme::ECDSA_NISTP256_SHA256],
        )
    }

    fn generated(
        algorithm: &'static rcgen::SignatureAlgorithm,
        scheme: SignatureScheme,
    ) -> TestKey {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        Self::certified(pair.serialized_der(), algorithm, &[scheme])
    }

    fn certified(
        pkcs8: &[u8],
        algorithm: &'static rcgen::SignatureAlgorithm,
        schemes: &[SignatureScheme],
    ) -> TestKey {
        let pkcs8_der = PrivatePkcs8KeyDer::from(pkcs8);
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8_der, algorithm).unwrap();
        let name = vec!["device".to_owned()];
        let certificate = rcgen::CertificateParams::new(name)
            .unwrap()
            .self_signed(&pair)
            .unwrap();
        Self::new(pkcs8, certificate.into(), schemes)
    }

    fn new(
        pkcs8: &[u8],
        certificate: CertificateDer<'static>,
        schemes: &[SignatureScheme],
    ) -> TestKey {
        let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
        TestKey {
            public: PublicKey::of_certificate(&certificate).unwrap(),
            certificate,
            schemes: schemes.to_vec(),
            signer: rustls::crypto::ring::sign::any_supported_type(&pkcs8).unwrap(),
        }
    }

    /// What a server answers that has this key, and no other.
    pub fn answer(&self, request: Request) -> Response {
        let answer = match request {
            Request::OpenKey(open) => self.open(&open),
            Request::Sign(sign) => self.sign(&sign),
            _ => Err(Failure::new(ErrorCode::Unsupported, "not here")),
        };
        answer.unwrap_or_else(Response::Error)
    }

    fn open(&self, request: &OpenKey) -> Result<Response, Failure> {
        if request
            .spki
            .as_ref()
            .is_some_and(|spki| **spki != self.public.spki())
        {
            return Err(Failure::new(
                ErrorCode::KeyNotFound,
                "no key of this certificate",
            ));
        }
        Ok(self.answer_with_spki(self.public.spki()))
    }

    /// What `OpenKey` is answered with, of a server that may have gone mad about the public key.
    pub fn answer_with_spki(&self, spki: &[u8]) -> Response {
        let schemes = self.schemes.iter().map(|scheme| u16::from(*scheme));
        let mut key = OpenedKey::new(
            FULL_URI,
            &self.public,
            schemes.filter_map(Scheme::from_number),
        );
        key.spki = spki.to_vec().into();
        Response::Key(key)
    }

    fn sign(&self, request: &Sign) -> Result<Response, Failure> {
        if request.identity != self.public.identity() {
            return Err(Failure::new(
                ErrorCode::KeyChanged,
                "this is another key; open it again",
            ));
        }
        let signature = self.signature(request.scheme, &request.message);
        Ok(Response::Signature(Signature::new(signature)))
    }

    pub fn signature(&self, scheme: u16, message: &[u8]) -> Vec<u8> {
        let signer = self.signer.choose_scheme(&[scheme.into()]).unwrap();
        signer.sign(message).unwrap()
    }
}
