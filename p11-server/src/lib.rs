//! The server side of `tedge-p11-server`: an engine that signs with the keys of a PKCS#11 module, and
//! the daemon that lets programs use it through a UNIX socket.
//!
//! A request comes in by `net`, which knows sockets and clients; `dispatch` and `tedge1` are the only
//! places that know all requests, and `caller` asks the policy; [`service`] is the port that it speaks
//! to; [`token`] is the engine behind it, and the only part that knows PKCS#11. Imports point that way
//! and never back.
//!
//! | room | what enters, what leaves |
//! |---|---|
//! | `main` | flags and signals; joins `net` and `token` |
//! | `log` | events; lines on stderr |
//! | `config` | flags, environment, `tedge.toml`, credentials; one configuration |
//! | `net` | connections; requests, with limits and deadlines |
//! | `dispatch`, `tedge1` | a request of protocol 1 or of an old client; its response |
//! | `caller` | a request and who sent it; what the service says, if the policy lets it be asked |
//! | `policy` | who may do what |
//! | `audit` | what was done; one line of the log |
//! | [`service`] | the trait between the two halves |
//! | [`token`] | a URI and a message; a signature |
//! | [`error`] | what a request can fail with |
//!
//! Without the feature `daemon`, which holds all but the last three, the engine can be embedded:
//!
//! ```no_run
//! use p11_proto::message::OpenKey;
//! use p11_server::service::Unrestricted;
//! use p11_server::{Engine, Service, Settings};
//!
//! let module = "/usr/lib/softhsm/libsofthsm2.so".as_ref();
//! let engine = Engine::load(module, Settings { pin: Some("1234".into()), ..Settings::default() })?;
//! let asked = OpenKey {
//!     uri: "pkcs11:token=my-token;object=my-key".into(),
//!     pin: None,
//!     spki: None,
//! };
//! let key = engine.open_key(&asked, &Unrestricted)?;
//! println!("{} can sign {:x?}", key.uri, key.schemes);
//! # Ok::<(), p11_server::Error>(())
//! ```
#![deny(unsafe_code)]

#[cfg(feature = "daemon")]
pub mod audit;
#[cfg(feature = "daemon")]
pub mod caller;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod dispatch;
pub mod error;
#[cfg(feature = "daemon")]
pub mod log;
#[cfg(feature = "daemon")]
pub mod net;
#[cfg(feature = "daemon")]
pub mod policy;
pub mod service;
#[cfg(feature = "daemon")]
pub mod tedge1;
pub mod token;

pub use error::Error;
pub use service::Service;
pub use token::{Engine, Settings};
