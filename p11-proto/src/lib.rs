#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`message`] | [`Request`] and [`Response`], a struct for each message, and [`Failure`] |
//! | [`frame`] | the preamble and the length-prefixed frames of protocol 1 |
//! | [`tedge1`] | the messages of released `tedge` clients and servers, and their PEM |
//! | [`scheme`] | the TLS signature schemes that a key can be asked for |
//! | [`spki`] | public keys in the one form that is compared and hashed |
//! | [`key_reference`] | PEM files that say which key in a token is meant |
//! | [`secret`] | [`Pin`] and [`UriText`], which are wiped and not printed |
//! | [`error`] | what can go wrong on this side |
#![forbid(unsafe_code)]

mod body;
mod decode;
pub mod error;
pub mod frame;
pub mod key_reference;
pub mod message;
mod pem;
pub mod scheme;
pub mod secret;
pub mod spki;
pub mod tedge1;

pub use error::Error;
pub use key_reference::KeyReference;
pub use message::{ErrorCode, Failure, Request, Response};
pub use scheme::Scheme;
pub use secret::{Pin, UriText};
pub use spki::Identity;
