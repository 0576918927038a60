#![doc = include_str!("../README.md")]
//!
//! # Map
//! | module | what it holds |
//! |---|---|
//! | `resolver` | [`Resolver`]: certificate chain and key, checked to belong together |
//! | `signing_key` | [`SigningKey`]: opened once, then one request for each signature |
//! | `client` | [`Client`]: every request that the server knows, one method each |
//! | `transport` | requests over pooled connections, repeated while the server restarts |
//! | `tedge1` | the same requests in the protocol of old servers |
//! | `connection` | a connection that speaks protocol 1 |
//! | `socket` | the UNIX socket, with deadlines |
//! | `uri` | the PIN in a URI |
//! | `config` | [`Config`]: which socket, which [`Protocol`], and how long to try |
//! | `error` | [`Error`]: what can go wrong, and what to do about it |
//!
//! Each imports only from modules below it.
//!
//! # When the server restarts
//! A lost connection is replaced, and a request is repeated for ten seconds while the server is not
//! there: a restart delays a handshake, but does not fail it. A request that changes a token is sent
//! once: [`Error::OutcomeUnknown`] means that the answer was lost, and the token may have changed.
//!
//! # When the key changes
//! A [`SigningKey`] is the key that was found when it was opened. If its URI leads to another key
//! later, handshakes fail until the program has opened the key again, with its certificate:
//!
//! ```
//! use p11_client::Error;
//!
//! /// Whether a connection failed because there is another key in the token.
//! fn key_changed(error: &(dyn std::error::Error + 'static)) -> bool {
//!     Error::in_handshake(error).is_some_and(|error| error.code() == "KeyChanged")
//! }
//! # assert!(!key_changed(&std::io::Error::other("")));
//! ```
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
/// `chain` is the client's certificate and its intermediates, the client's first. Of the keys that
/// match `uri` (RFC 7512), the one of the certificate is used; `pkcs11:` matches every key. Without a
/// `pin` the server uses its own.
///
/// # Errors
/// Those of a request, and [`Error::NoCertificate`], [`Error::Certificate`], [`Error::Mismatch`].
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
