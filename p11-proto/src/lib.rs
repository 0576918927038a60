//! The messages between a program that needs a signature and the server that can use the key.
//!
//! The format is documented in `PROTOCOL.md` at the root of the repository, well enough to write a
//! peer in another language. This crate is data: it opens no socket and knows no PKCS#11 module.
//!
//! | room | what it holds |
//! |---|---|
//! | [`message`] | [`Request`] and [`Response`], a struct for each message |
//! | [`error`] | what a request can fail with, on the wire ([`Failure`]) and while reading it ([`Error`]) |
//! | [`frame`] | the preamble and the length-prefixed frames of protocol 1 |
//! | `reader` | MessagePack, as far as protocol 1 has words for it |
//! | [`scheme`] | the TLS signature schemes that a key can be asked for |
//! | [`spki`] | public keys in the one form that is compared and hashed |
//! | [`tedge1`] | the messages of released `tedge` clients and servers, and their legacy PEM |
//! | [`secret`] | [`Pin`] and [`UriText`], which nothing prints whole |
//!
//! ```
//! use p11_proto::{Request, Response, frame, message::Ping};
//!
//! let mut wire = Vec::new();
//! frame::write(&mut wire, &Request::Ping(Ping::default()))?;
//! let body = frame::read(&mut wire.as_slice())?.expect("a frame");
//! assert_eq!(frame::decode::<Request>(&body)?, Request::Ping(Ping::default()));
//! # Ok::<(), p11_proto::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod error;
pub mod frame;
pub mod message;
mod reader;
pub mod scheme;
pub mod secret;
pub mod spki;
pub mod tedge1;

pub use error::{Error, ErrorCode, Failure};
pub use message::{Request, Response};
pub use scheme::Scheme;
pub use secret::{Pin, UriText};
pub use spki::Identity;
