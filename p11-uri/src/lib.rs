//! PKCS#11 URIs as in [RFC 7512]: parse, print, match. Text of people and tools enters; a [`Uri`] that
//! cannot hold a bad value leaves, and answers which token and which object it means.
//!
//! ```
//! use p11_uri::{ObjectType, Uri};
//!
//! let uri = Uri::parse("pkcs11:token=my%20token;id=%01%FF;type=private?pin-value=1234")?;
//! assert_eq!(uri.token(), Some("my token"));
//! assert_eq!(uri.id(), Some(&[0x01, 0xFF][..]));
//! assert_eq!(uri.object_type(), Some(ObjectType::Private));
//!
//! // What is printed never shows the PIN.
//! assert_eq!(uri.to_string(), "pkcs11:token=my%20token;id=%01%FF;type=private?pin-value=<REDACTED>");
//! # Ok::<(), p11_uri::Error>(())
//! ```
//!
//! What is wrong with a text is said with its place, counted in bytes from 0, and a remedy:
//!
//! ```
//! let error = p11_uri::Uri::parse("pkcs11:token=a/b").unwrap_err();
//! assert_eq!(error.position(), Some(14));
//! ```
//!
//! Which token and object a URI means is asked with plain facts, from whatever PKCS#11 binding you use:
//!
//! ```
//! use p11_uri::{ObjectFacts, ObjectType, TokenFacts, Uri};
//!
//! let token = TokenFacts { label: "my token".into(), serial: "83f9".into(), ..TokenFacts::default() };
//! let key = ObjectFacts { object_type: ObjectType::Private, label: "my-key".into(), id: vec![1] };
//!
//! let uri = Uri::parse("pkcs11:token=my%20token;object=my-key")?;
//! assert!(uri.matches_token(&token) && uri.matches_object(&key));
//!
//! assert_eq!(Uri::of_object(&token, &key).to_string(),
//!            "pkcs11:serial=83f9;token=my%20token;id=%01;object=my-key;type=private");
//! # Ok::<(), p11_uri::Error>(())
//! ```
//!
//! A service that holds every request to the URI of its own configuration uses [`Uri::scoped_by`] and
//! [`Uri::require_request_form`]; [`redact`] makes any text, a URI or not, fit for a log.
//!
//! # Map
//! | file | what is in it |
//! |---|---|
//! | `uri` | [`Uri`]: what a URI says, attribute by attribute |
//! | `parse`, `attribute` | text to [`Uri`]: the grammar, and the values of the attributes |
//! | `format`, `redact` | [`Uri`] to text, with and without PIN; any text to what may be logged |
//! | `facts` | [`TokenFacts`], [`ObjectFacts`], and the URIs that name them |
//! | `matching` | which token and object a URI means; one URI held to the scope of another |
//! | `error` | [`Error`] |
//!
//! [RFC 7512]: https://www.rfc-editor.org/rfc/rfc7512
#![forbid(unsafe_code)]

mod attribute;
mod error;
mod facts;
mod format;
mod matching;
mod parse;
mod redact;
mod uri;

pub use error::Error;
pub use facts::{ObjectFacts, ObjectType, TokenFacts};
pub use matching::Scoped;
pub use parse::MAX_LEN;
pub use redact::redact;
pub use uri::Uri;
