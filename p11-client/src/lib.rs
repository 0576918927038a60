//! A rustls client key that stays in its PKCS#11 token: `tedge-p11-server` signs, at the other end
//! of a UNIX socket.
//!
//! Pure Rust, blocking, without an async runtime and without a crypto provider of its own: it works
//! with whichever provider the program has chosen for rustls.
//!
//! | room | what it holds |
//! |---|---|
//! | [`client_auth`] | the paved path: from certificate chain and key URI to what rustls wants |
//! | [`SigningKey`] | the key: opened once, then one request for each signature |
//! | [`Resolver`] | certificate chain and key, checked to belong together |
//! | [`Client`] | kept connections, reconnecting, repeating, deadlines |
//! | [`Config`] | which socket, and for how long to try |
//! | [`Error`] | what can go wrong, and what to do about it |
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
pub use p11_proto::{ErrorCode, Failure, Identity, Pin, message};
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
