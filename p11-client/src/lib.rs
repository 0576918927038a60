#![doc = include_str!("../README.md")]
//!
//! # Map
//! | module | what it holds |
//! |---|---|
//! | `tedge_toml` | feature `config`: tedge.toml and the environment |
//! | `cryptoki_config` | feature `config`: `CryptokiConfig`, a client and key as thin-edge configures them |
//! | `asynchronous` | feature `tokio`: the requests on threads that may block |
//! | `csr` | feature `csr`: `CertificateParams`, certificate requests and self-signed certificates |
//! | `certificate_names` | feature `csr`: what certificates say in words |
//! | `rustcrypto` | feature `signature`: `KeyWithScheme` and what it signs |
//! | `key_provider` | [`KeyProvider`]: keys for libraries that take a PEM file only |
//! | `tls` | [`SigningKey::client_config`], [`RenewingResolver::client_config`] and the same for servers |
//! | `renewing_resolver` | [`RenewingResolver`]: follows a certificate file and its key |
//! | `chain_file` | that file |
//! | `resolver` | [`Resolver`]: certificate chains and keys, checked to belong together |
//! | `lazy_key` | [`LazyKey`]: opened by the first handshake |
//! | `unusable_key` | a key that fails the handshake with the reason |
//! | `signing_key` | [`SigningKey`]: opened once, then one request for each signature |
//! | `client` | [`Client`]: every request that the server knows, one method each |
//! | `socket_transport` | [`SocketTransport`]: requests over pooled connections, repeated while the server restarts |
//! | `module` | feature `module`: requests to a PKCS#11 module in the process |
//! | `transport` | [`Transport`]: what carries requests, the socket or something else |
//! | `retry` | pauses between tries, and their end |
//! | `tedge1` | the same requests in the protocol of old servers |
//! | `connection` | a connection that speaks protocol 1 |
//! | `socket` | the UNIX socket, with deadlines |
//! | `socket_path` | why nobody is reached at a path |
//! | `uri` | the PIN in a URI |
//! | `config` | [`Config`]: which socket, which [`Protocol`], and how long to try |
//! | `error` | [`Error`]: what can go wrong, and what to do about it |
//! | `no_common_scheme`, `permission` | parts of its texts |
//! | `refused` | what a peer has offered that no key can sign |
//! | `per_process` | what a child of fork(2) has for itself |
//!
//! Each imports only from modules below it.
//!
//! # When the server restarts or is busy
//! A lost connection is replaced, and a request is repeated for ten seconds while the server is not
//! there, and until its deadline while it is `Busy`: that delays a handshake, but does not fail it. What waiting cannot
//! mend is told at once: a socket that this user may not use, a path where something else is, a mount of a socket that is
//! no more. A request that changes a token is sent once: [`Error::OutcomeUnknown`] means that the answer was lost, and the
//! token may have changed.
//!
//! After `fork(2)` parent and child may both go on: the child closes what it has inherited and connects anew, and waits for
//! no thread that only its parent has.
//!
//! # What blocks, and for how long
//! Every method of [`Client`] and [`SigningKey`] blocks its thread until the answer is there, and so does a TLS handshake at
//! the moment when rustls asks for the signature: TPMs take 10 ms to a second, smart cards up to some seconds, a token
//! that is busy longer. Without a server it is ten seconds ([`Config::retry_for`]), with one that does not answer 35
//! ([`Config::deadline`]). A [`RenewingResolver`] asks for its key before, for two seconds at most.
//!
//! In an async program a handshake therefore holds up the thread of the runtime that polls it, and all tasks on it:
//! timers of the same thread fire late, a `timeout` around the handshake too. On tokio's multi-thread runtime other threads
//! go on. Where that is not enough, connect on a thread that may block, while the runtime goes on:
//!
//! ```text
//! let runtime = tokio::runtime::Handle::current();
//! let connect = move || runtime.block_on(connector.connect(name, tcp)); // of tokio-rustls
//! let stream = timeout(limit, tokio::task::spawn_blocking(connect)).await???;
//! ```
//!
//! and set [`Config::deadline`] and [`Config::retry_for`] to how long your peer waits. For requests that the program makes
//! itself the feature `tokio` has `Client::sign_async` and its like.
//!
//! A signature that took longer than a second is a warning in the log ([`Config::slow_signature`]), and so is a wait of more
//! than a second for a server. The log is that of [`tracing`], or of the crate `log` where no subscriber of tracing is set.
//!
//! # When no certificate is sent
//! If a peer takes no signature scheme that the key can make, rustls goes on without a certificate, and the handshake fails
//! later or not at all. That is a warning in the log, and [`Resolver::why_not_sent`] has it for programs.
//!
//! A client's certificate on P-521 is sent in TLS 1.2, and refused by OpenSSL with the alert `illegal_parameter`, since rustls does
//! not list that curve for key exchange. A [`Resolver`] uses it last there, and warns of it: have TLS 1.3, or P-256 or P-384.
//!
//! # When the certificate or the key changes
//! A program that runs for months outlives its certificate. A [`RenewingResolver`] is given the path of the certificate
//! file: it uses what is there at each handshake, and the key of that certificate, so nothing else is needed after a renewal,
//! also where the new key has another id. Its clients resume no session, so each connection costs a signature.
//! [`RenewingResolver::client_config`] says why.
//!
//! A [`SigningKey`] is the key that was found when it was opened. If its URI leads to another key
//! later, or the key is gone, handshakes fail until the program has opened the key again, with its certificate as it is then:
//!
//! ```
//! use p11_client::Error;
//!
//! /// Whether a connection failed because there is another key in the token.
//! fn key_changed(error: &(dyn std::error::Error + 'static)) -> bool {
//!     Error::in_handshake(error).is_some_and(Error::is_key_changed)
//! }
//! # assert!(!key_changed(&std::io::Error::other("")));
//! ```
//!
//! # When the server is not there yet
//! Opening a [`SigningKey`] asks the server. A [`RenewingResolver`], or a [`LazyKey`] beside a chain that the program has, is
//! opened by the first handshake instead, and its certificate tells which key it is; where that fails, the handshake fails with the reason ([`Error::in_handshake`]) and the
//! next one tries again.
//!
//! # Libraries that take a private key as PEM
//! They get a [`KeyReference`] in its place: a file with the key's URI that looks like a private key (PKCS#8). A
//! [`KeyProvider`] makes a key of it, in a [`rustls::crypto::CryptoProvider`] that is given to the library (ureq) or installed as
//! the default (tonic).
//!
//! # Features
//! What a small program (ring, `opt-level = "z"`, LTO, stripped: 1.41 MB without any of them) and its 54 crates
//! grow by:
//!
//! | feature | what it adds | crates | bytes | C |
//! |---|---|--:|--:|---|
//! | `tedge1` (default) | servers of thin-edge 1.7 to 2.0 | 0 | 51,000 | no |
//! | `config` | `CryptokiConfig`: thin-edge's tedge.toml and environment | 5 | 185,000 | no |
//! | `module` | `Client::with_module`: a PKCS#11 module in the process, without a server | 13 | 759,000 | the module, by dlopen(3): no static program |
//! | `tokio` | `Client::sign_async` and its like | 1 | 73,000 | no |
//! | `signature` | `SigningKey::with_scheme`: the traits of RustCrypto's `signature` 3 and `spki` 0.8 | 1 | 3,000 | no |
//! | `csr` | `CertificateParams`: certificate requests and self-signed certificates, by x509-cert; brings `signature` | 6 | 331,000 | no |
//! | `cli` | the program `tedge-p11`, and nothing in the library | 56 | 0 | ring's, in the program |
//!
//! # Old servers
//! `tedge-p11-server` 1.7 to 2.0 speaks tedge1 instead of protocol 1. The client finds out and speaks
//! it, too, so client and server can be updated in any order. An old server signs, and lists and
//! changes keys and tokens, with these limits:
//!
//! - Schemes: ECDSA, RSA with SHA-256 (PSS and PKCS#1), and Ed25519 if the server has it.
//! - If several keys match the URI, the server chooses one; if that is not the certificate's, opening
//!   the key fails.
//! - The client checks that the key is still the same one by its public key, which it asks for before
//!   each signature, and only if the token has it.
//! - What the server cannot do is [`Error::TooOld`].
#![forbid(unsafe_code)]

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

#[cfg(feature = "tokio")]
mod asynchronous;
#[cfg(feature = "csr")]
mod certificate_names;
mod chain_file;
mod client;
mod config;
mod connection;
#[cfg(feature = "config")]
mod cryptoki_config;
#[cfg(feature = "csr")]
mod csr;
mod error;
mod key_provider;
mod lazy_key;
#[cfg(feature = "module")]
mod module;
mod no_common_scheme;
mod per_process;
mod permission;
mod refused;
mod renewing_resolver;
mod resolver;
mod retry;
#[cfg(feature = "signature")]
mod rustcrypto;
mod signing_key;
mod socket;
mod socket_path;
mod socket_transport;
#[cfg(feature = "tedge1")]
mod tedge1;
#[cfg(feature = "config")]
mod tedge_toml;
mod tls;
mod transport;
mod unusable_key;
mod uri;

pub use client::Client;
pub use config::Config;
#[cfg(feature = "tedge1")]
pub use config::Protocol;
#[cfg(feature = "config")]
pub use cryptoki_config::{CryptokiConfig, Mode};
#[cfg(feature = "csr")]
pub use csr::CertificateParams;
pub use error::Error;
pub use key_provider::KeyProvider;
pub use lazy_key::LazyKey;
#[cfg(feature = "module")]
pub use module::{ModuleConfig, ModuleTransport};
pub use p11_proto::{
    ErrorCode, Failure, Identity, KeyReference, Pin, Scheme, UriText, message, spki,
};
#[cfg(feature = "module")]
pub use p11_server;
pub use p11_uri::Uri;
pub use renewing_resolver::RenewingResolver;
pub use resolver::Resolver;
#[cfg(feature = "signature")]
pub use rustcrypto::{FixedSignature, KeyWithScheme, VerifyingKey, X509Signature};
pub use rustls;
#[cfg(feature = "signature")]
pub use signature;
pub use signing_key::SigningKey;
pub use socket_transport::SocketTransport;
pub use transport::Transport;
#[cfg(feature = "csr")]
pub use x509_cert;

/// Client authentication for [`rustls::ClientConfig`] (`with_client_cert_resolver`) with a key that the server can use.
///
/// `chain` is the client's certificate and its intermediates, the client's first. Of the keys that
/// match `uri` (RFC 7512), the one of the certificate is used; `pkcs11:` matches every key. Without a
/// `pin` the server uses its own.
///
/// # Errors
/// Those of a request, and [`Error::NoCertificate`], [`Error::Certificate`], [`Error::CertificateOrder`],
/// [`Error::Mismatch`].
pub fn client_auth(
    config: Config,
    uri: &str,
    pin: Option<Pin>,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Arc<Resolver>, Error> {
    let client = Client::new(config);
    let key = SigningKey::open_for(&client, uri, pin, &chain)?;
    Ok(Arc::new(Resolver::new(chain, key)?))
}
