//! A rustls client key that stays in its PKCS#11 token: `tedge-p11-server` signs, at the other end
//! of a UNIX socket.
//!
//! Pure Rust, blocking, without an async runtime and without a crypto provider of its own: it links
//! into a static binary, and works with whichever provider the program has chosen for rustls.
//!
//! ```no_run
//! use p11_client::Config;
//! use rustls::pki_types::{CertificateDer, pem::PemObject};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let chain = CertificateDer::pem_file_iter("client.pem")?.collect::<Result<Vec<_>, _>>()?;
//! let auth = p11_client::client_auth(Config::default(), "pkcs11:token=factory", None, chain)?;
//!
//! let mut roots = rustls::RootCertStore::empty();
//! roots.add(CertificateDer::from_pem_file("ca.pem")?)?;
//! let tls = rustls::ClientConfig::builder()
//!     .with_root_certificates(roots)
//!     .with_client_cert_resolver(auth);
//! # Ok(())
//! # }
//! ```
//!
//! | room | what it holds |
//! |---|---|
//! | [`client_auth`] | the paved path: from certificate chain and key URI to what rustls wants |
//! | [`SigningKey`] | the key: opened once, then one request for each signature |
//! | [`Resolver`] | certificate chain and key, checked to belong together |
//! | [`Client`] | every request that the server knows, one method each |
//! | [`Config`] | which socket, which [`Protocol`], and for how long to try |
//! | [`Error`] | what can go wrong, and what to do about it |
//!
//! # When the server restarts
//! A lost connection is replaced, and a request is repeated for ten seconds while the server is not
//! there, so that a restart costs a handshake some time and no error. A request that changes a token
//! is sent once: [`Error::OutcomeUnknown`] says that nobody knows whether it was carried out.
//!
//! # When the key changes
//! A [`SigningKey`] stands for the one key that was found when it was opened. When its URI leads to
//! another key by now, handshakes fail until the owner has looked at the certificate and opened the
//! key again:
//!
//! ```
//! use p11_client::{Error, ErrorCode};
//!
//! /// Whether a connection failed because there is another key in the token.
//! fn key_changed(error: &(dyn std::error::Error + 'static)) -> bool {
//!     matches!(
//!         Error::in_handshake(error),
//!         Some(Error::Server(failure)) if failure.code == ErrorCode::KeyChanged
//!     )
//! }
//! # assert!(!key_changed(&std::io::Error::other("")));
//! ```
//!
//! # Old servers
//! The servers that were released before this project, `tedge-p11-server` 1.7 to 2.0, speak tedge1
//! instead of protocol 1. The client finds out and speaks it with them, so that client and server can
//! be updated in any order. An old server signs, lists and changes keys and tokens too, with less
//! to choose from:
//!
//! - Schemes: ECDSA, RSA with SHA-256 (PSS and PKCS#1), and Ed25519 if the server has it.
//! - Of several keys that match the URI it takes one of its own choice; where that is not the
//!   certificate's, opening it fails.
//! - That the key has not changed is seen by its public half alone, asked for before each signature
//!   and only where the token has it.
//! - What it cannot do at all is [`Error::TooOld`].
#![forbid(unsafe_code)]

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;

mod client;
mod config;
mod connection;
mod error;
mod resolver;
mod signing_key;
mod socket;
mod tedge1;
mod transport;
mod uri;

pub use client::Client;
pub use config::{Config, Protocol};
pub use error::Error;
pub use p11_proto::{ErrorCode, Failure, Identity, Pin, UriText, message};
pub use resolver::Resolver;
pub use signing_key::SigningKey;

/// Client authentication for [`rustls::ClientConfig`] with a key that the server can use.
///
/// `chain` is the client's certificate and its intermediates, the client's first. Among the keys
/// that match `uri`, the one that the certificate was issued for is used; `pkcs11:` matches all.
/// Without a `pin` the server uses its own.
///
/// # Errors
/// Whatever keeps the server from being asked, what it answers, and [`Error::Mismatch`].
pub fn client_auth(
    config: Config,
    uri: &str,
    pin: Option<Pin>,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ResolvesClientCert>, Error> {
    let leaf = chain.first().ok_or(Error::NoCertificate)?;
    let key = SigningKey::open(&Client::new(config), uri, pin, Some(leaf))?;
    Ok(Arc::new(Resolver::new(chain, key)?))
}

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
