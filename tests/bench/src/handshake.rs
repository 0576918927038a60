//! Whole TLS 1.3 handshakes with a client certificate, in memory: the client's key in a file, with us,
//! with p11-kit. rustls on both ends, so that they differ in nothing but the signature.

use std::sync::Arc;

use p11_client::{Client, Config, Resolver};
use p11_tests::pki::{Pki, Version};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SignatureAlgorithm, SignatureScheme,
};
use std::sync::Mutex;

use crate::measure::{self, Figures};
use crate::pkcs11::{self, Module};
use crate::signers::{Candidate, KEY, PIN, Setup};

/// How many threads of a program make handshakes at once.
pub const THREADS: [usize; 4] = [1, 2, 4, 8];

/// Measures handshakes by so many threads each, which share a client: one `Client` and one key of ours.
pub fn compare(setup: &Setup) -> [Vec<Figures>; THREADS.len()] {
    let pki = Pki::new();
    let server = server(&pki);
    let roots = roots(&pki);
    let client = Client::new(Config::new(setup.ours.socket()));
    let key = p11_client::SigningKey::open(&client, KEY, None, None).unwrap();
    let spki = key.public_key().unwrap().to_vec();
    let chain = chain(&pki.client("device", &spki, Version::V3));

    // The key of a server certificate, with a client certificate over it.
    let in_file = pki.server();
    let file_key = PrivateKeyDer::from_pem_file(&in_file.private_key).unwrap();
    let file_key = rustls::crypto::ring::sign::any_supported_type(&file_key).unwrap();
    let file_spki = file_key.public_key().unwrap().to_vec();
    let file_chain = self::chain(&pki.client("in a file", &file_spki, Version::V3));
    let p11_kit = Arc::new(P11Kit {
        module: setup.p11_kit,
        idle: Arc::default(),
    });

    let candidates: Vec<(&'static str, Arc<dyn ResolvesClientCert>)> = vec![
        ("key in a file", single(file_chain, file_key)),
        ("ours", Arc::new(Resolver::new(chain.clone(), key).unwrap())),
        ("p11-kit", single(chain, p11_kit)),
    ];
    let candidates: Vec<_> = candidates
        .into_iter()
        .map(|(name, auth)| {
            let tls = ClientConfig::builder()
                .with_root_certificates(roots.clone())
                .with_client_cert_resolver(auth);
            let (tls, server) = (Arc::new(without_resumption(tls)), server.clone());
            Candidate {
                name,
                open: Box::new(move || {
                    let (tls, server) = (tls.clone(), server.clone());
                    Box::new(move || handshake(&tls, &server))
                }),
            }
        })
        .collect();
    THREADS.map(|threads| measure::latencies(&candidates, threads))
}

fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = Connection::from(ClientConnection::new(client.clone(), name).unwrap());
    let mut server = Connection::from(ServerConnection::new(server.clone()).unwrap());
    let mut bytes = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        pass(&mut client, &mut server, &mut bytes);
        pass(&mut server, &mut client, &mut bytes);
    }
    let Connection::Server(server) = server else {
        unreachable!("it was made a server above");
    };
    assert!(
        server.peer_certificates().is_some(),
        "the client has shown its certificate"
    );
}

fn pass(from: &mut Connection, to: &mut Connection, bytes: &mut Vec<u8>) {
    bytes.clear();
    while from.wants_write() {
        from.write_tls(bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().unwrap();
    }
}

fn server(pki: &Pki) -> Arc<ServerConfig> {
    let identity = pki.server();
    let key = PrivateKeyDer::from_pem_file(&identity.private_key).unwrap();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots(pki)))
        .build()
        .unwrap();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain(&identity.certificate), key)
        .unwrap();
    Arc::new(config)
}

fn roots(pki: &Pki) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(pki.authority()).unwrap())
        .unwrap();
    roots
}

fn chain(file: &std::path::Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn single(
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
) -> Arc<dyn ResolvesClientCert> {
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

/// Every handshake is a full one.
fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// A key behind `p11-kit server`, as a program would use it that knows PKCS#11 itself: a session for each thread.
#[derive(Clone)]
struct P11Kit {
    module: Module,
    idle: Arc<Mutex<Vec<pkcs11::Signer>>>,
}

impl std::fmt::Debug for P11Kit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("P11Kit")
    }
}

impl SigningKey for P11Kit {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let p256 = SignatureScheme::ECDSA_NISTP256_SHA256;
        offered
            .contains(&p256)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for P11Kit {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let digest = ring::digest::digest(&ring::digest::SHA256, message);
        let digest = digest.as_ref().try_into().unwrap();
        let idle = self.idle.lock().unwrap().pop();
        let mut signer = idle.unwrap_or_else(|| self.module.signer(PIN));
        let signature = to_der(&signer.sign(digest));
        self.idle.lock().unwrap().push(signer);
        Ok(signature)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// `r || s` as a DER `Ecdsa-Sig-Value`.
fn to_der(raw: &[u8; 64]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let start = bytes
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(bytes.len() - 1);
        let sign = if bytes[start] & 0x80 != 0 {
            vec![0]
        } else {
            vec![]
        };
        let value = [&sign[..], &bytes[start..]].concat();
        [&[0x02, value.len() as u8][..], &value].concat()
    };
    let both = [integer(&raw[..32]), integer(&raw[32..])].concat();
    [&[0x30, both.len() as u8][..], &both].concat()
}
