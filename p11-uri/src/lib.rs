#![doc = include_str!("../README.md")]
//!
//! # Map
//! | file | what is in it |
//! |---|---|
//! | `matching` | which token and object a [`Uri`] means, and the scope of a service |
//! | `hint` | what a URI that matches nothing was perhaps meant to be |
//! | `parse` | text to [`Uri`] |
//! | `format`, `redact` | [`Uri`] to text, with and without PIN; any text to what may be logged |
//! | `uri` | [`Uri`] and the tables of its attributes |
//! | `value` | how the values of attributes are read, printed and matched |
//! | `info` | [`TokenInfo`], [`ObjectInfo`], [`ObjectType`] |
//! | `error` | [`Error`] and [`ErrorKind`] |
#![forbid(unsafe_code)]

mod error;
mod format;
mod hint;
mod info;
mod matching;
mod parse;
mod redact;
mod uri;
mod value;

pub use error::{Error, ErrorKind, MAX_LEN};
pub use info::{ObjectInfo, ObjectType, TokenInfo};
pub use matching::Scoped;
pub use redact::redact;
pub use uri::Uri;
