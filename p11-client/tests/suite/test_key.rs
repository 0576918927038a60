//! A key pair in memory, and how servers of both protocols answer that have it and no other.

use std::sync::Arc;

use p11_client::message::{OpenKey, OpenedKey, Pong, Sign, Signature};
use p11_client::{ErrorCode, Failure};
use p11_proto::spki::{Kind, PublicKey};
use p11_proto::tedge1::{self, Algorithm, ChooseScheme, ChosenScheme, legacy_pem};
use p11_proto::{Request, Response, Scheme};
use rcgen::SignatureAlgorithm;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;

use crate::fake_server::{FakeServer, TempSocket};

/// The URI that a server of protocol 1 gives the key.
pub const FULL_URI: &str = "pkcs11:token=t;serial=1;object=k;id=%01";

/// A key pair with a self-signed certificate.
#[derive(Clone)]
pub struct TestKey {
    pub certificate: CertificateDer<'static>,
    pub public: PublicKey,
    pub schemes: Vec<SignatureScheme>,
    pub signer: Arc<dyn SigningKey>,
}

impl TestKey {
    pub fn p256() -> TestKey {
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        Self::generated(&rcgen::PKCS_ECDSA_P256_SHA256, scheme)
    }

    pub fn p384() -> TestKey {
        let scheme = SignatureScheme::ECDSA_NISTP384_SHA384;
        Self::generated(&rcgen::PKCS_ECDSA_P384_SHA384, scheme)
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
        let pkcs8 = include_bytes!("data/rsa.pk8");
        Self::certified(pkcs8, &rcgen::PKCS_RSA_SHA256, &schemes)
    }

    /// A key of each kind.
    pub fn all() -> [TestKey; 4] {
        [Self::p256(), Self::p384(), Self::ed25519(), Self::rsa()]
    }

    /// A P-256 key whose certificate is X.509 version 1.
    pub fn with_v1_certificate() -> TestKey {
        Self::new(
            include_bytes!("data/v1.pk8"),
            CertificateDer::from_slice(include_bytes!("data/v1.crt")),
            &[SignatureScheme::ECDSA_NISTP256_SHA256],
        )
    }

    fn generated(algorithm: &'static SignatureAlgorithm, scheme: SignatureScheme) -> TestKey {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        Self::certified(pair.serialized_der(), algorithm, &[scheme])
    }

    fn certified(
        pkcs8: &[u8],
        algorithm: &'static SignatureAlgorithm,
        schemes: &[SignatureScheme],
    ) -> TestKey {
        let der = PrivatePkcs8KeyDer::from(pkcs8);
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(["device".to_owned()]).unwrap();
        Self::new(
            pkcs8,
            parameters.self_signed(&pair).unwrap().into(),
            schemes,
        )
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
            signer: any_supported_type(&pkcs8).unwrap(),
        }
    }

    /// The answer of a server of protocol 1.
    pub fn answer(&self, request: Request) -> Response {
        match request {
            Request::Ping(_) => pong(),
            Request::OpenKey(open) => self.open(&open),
            Request::Sign(sign) => self.sign(&sign),
            _ => failure(ErrorCode::Unsupported, "not here"),
        }
    }

    fn open(&self, request: &OpenKey) -> Response {
        let expected = request.spki.as_deref().map(Vec::as_slice);
        if expected.is_some_and(|spki| spki != self.public.spki()) {
            return failure(ErrorCode::KeyNotFound, "no key of this certificate");
        }
        Response::Key(self.opened())
    }

    fn opened(&self) -> OpenedKey {
        let schemes = self.schemes.iter().map(|scheme| u16::from(*scheme));
        OpenedKey::new(
            FULL_URI,
            &self.public,
            schemes.filter_map(Scheme::from_number),
        )
    }

    fn sign(&self, request: &Sign) -> Response {
        if request.identity != self.public.identity() {
            return failure(ErrorCode::KeyChanged, "this is another key; open it again");
        }
        let signature = self.signature(request.scheme, &request.message);
        Response::Signature(Signature::new(signature))
    }

    /// The answer of an old server.
    pub fn old_answer(&self, request: &tedge1::Request) -> Option<tedge1::Response> {
        use tedge1::{Request, Response};
        Some(match request {
            Request::ChooseScheme(choose) => Response::ChooseScheme(self.choose(choose)),
            Request::GetPublicKeyPem(_) => Response::GetPublicKeyPem(legacy_pem(&self.public)),
            Request::SignWithSigScheme(sign) => {
                let scheme = Scheme::from(sign.sigscheme?).number();
                Response::Sign(self.signature(scheme, &sign.to_sign.0).into())
            }
            Request::Sign(sign) => {
                let scheme = self.schemes[0].into();
                Response::Sign(self.signature(scheme, &sign.to_sign.0).into())
            }
            _ => return None,
        })
    }

    fn choose(&self, request: &ChooseScheme) -> ChosenScheme {
        let scheme = self.old_schemes().into_iter().map(u16::from);
        ChosenScheme {
            scheme: scheme.into_iter().find(|s| request.offered.contains(s)),
            algorithm: match self.public.kind() {
                Kind::Rsa { .. } => Algorithm::Rsa,
                Kind::Ed25519 => Algorithm::Ed25519,
                _ => Algorithm::Ecdsa,
            },
        }
    }

    /// The schemes that old servers know.
    pub fn old_schemes(&self) -> Vec<SignatureScheme> {
        match self.public.kind() {
            Kind::Rsa { .. } => vec![
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::RSA_PKCS1_SHA256,
            ],
            _ => self.schemes.clone(),
        }
    }

    fn signature(&self, scheme: u16, message: &[u8]) -> Vec<u8> {
        let signer = self.signer.choose_scheme(&[scheme.into()]).unwrap();
        signer.sign(message).unwrap()
    }
}

impl TempSocket {
    /// A server of protocol 1 that has this key.
    pub fn serve_key(&self, key: &TestKey) -> FakeServer {
        let key = key.clone();
        self.serve(move |request| key.answer(request))
    }

    /// An old server that has this key.
    pub fn serve_old_key(&self, key: &TestKey) -> FakeServer {
        let key = key.clone();
        self.serve_old(move |request| key.old_answer(request))
    }
}

pub fn pong() -> Response {
    Response::Pong(Pong::new("fake 1", 1))
}

pub fn failure(code: ErrorCode, message: &str) -> Response {
    Response::Error(Failure::new(code, message))
}

pub fn old_error(text: &str) -> tedge1::Response {
    tedge1::Response::Error(text.to_owned())
}
