//! The server side of `tedge-p11-server`: an engine that signs with the keys of a PKCS#11 module, and
//! the daemon that lets programs use it through a UNIX socket.
//!
//! | module | what it does |
//! |---|---|
//! | [`daemon`] | the program: configuration, socket, policy, log; requests go to the [`Service`] |
//! | `engine` | the [`Engine`], a service: requests become calls of a PKCS#11 module |
//! | `service` | the trait between the two |
//! | `error` | what a request can fail with |
//! | `files` | small files, read whole |
//!
//! The daemon stands above the engine, and each module imports only modules below it. Without the feature
//! `daemon` the engine can be embedded:
//!
//! ```no_run
//! use p11_proto::{Request, Response, message::OpenKey};
//! use p11_server::{Engine, Service, Settings, Unrestricted};
//!
//! let module = "/usr/lib/softhsm/libsofthsm2.so".as_ref();
//! let mut settings = Settings::default();
//! settings.pin = Some("1234".into());
//! let engine = Engine::load(module, settings)?;
//! let open = Request::OpenKey(OpenKey::new("pkcs11:token=my-token;object=my-key"));
//! if let Response::Key(key) = engine.call(&open, &Unrestricted)? {
//!     println!("{} can sign {:x?}", key.uri, key.schemes);
//! }
//! # Ok::<(), p11_server::Error>(())
//! ```
#![deny(unsafe_code)]

#[cfg(feature = "daemon")]
pub mod daemon;
mod engine;
mod error;
mod files;
mod service;

pub use engine::{Engine, Settings, Timeouts, Wording};
pub use error::Error;
pub use service::{Access, Service, Unrestricted};
