//! The harness of the end-to-end tests: a test asks for real parts (token, server, broker,
//! certificates) and gets them running in a temporary folder; dropping them leaves nothing.
//!
//! - [`tools`]: finds the programs of Debian that the tests drive, and names the package of a missing one
//! - [`process`], [`proc`]: a running program, its log, how to end it, and what it takes of the machine
//! - [`wait`]: waiting for what should be so soon
//! - [`secrets`]: what no log may ever show
//! - [`softhsm`], [`keys`], [`objects`]: a token store of its own, with tokens, keys and certificates in it
//! - [`tpm`]: a software TPM of its own, with tokens and keys of tpm2-pkcs11 in it
//! - [`namespace`]: programs that see folders of a test in place of the system's
//! - [`card_reader`], [`piv_card`]: a reader of smart cards, and a card for it
//! - [`pki`]: a certificate authority, certificates for a broker and for keys in tokens
//! - [`server`], [`binary`]: the real `tedge-p11-server`, built from the sources as they are
//! - [`old_server`]: one that behaves as released servers do
//! - [`client`], [`raw_client`], [`requests`]: its clients, well-behaved and others, and what they ask
//! - [`as_user`]: clients that another user runs
//! - [`fixture`]: a token with a key, and a server that loads a module which misbehaves on demand
//! - [`broker`], [`openssl`]: the peers of a TLS handshake
//! - [`program`]: a test that is a process of its own, with a module in it
//! - [`terminal`]: a program at a terminal, as a person drives it
//! - [`mqtt`]: the shortest MQTT exchange that proves a login
//! - [`compare`]: whether something takes longer when others disturb it
//! - [`text`]: assertions on what a message or a log says
//! - [`verify`]: checks a signature without any code of ours
//!
//! A test reads like this:
//!
//! ```no_run
//! use p11_tests::{server::Server, keys::{KeyKind, KeySpec}, softhsm::SoftHsm};
//!
//! let hsm = SoftHsm::new();
//! let token = hsm.init_token("device", "482915", "771122");
//! let key = hsm.generate(&token, &KeySpec::new(KeyKind::P256, "my-key", &[1]));
//! let server = Server::builder().softhsm(&hsm).pin("482915").start();
//! server.wait_for_log("Server listening");
//! ```

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "only tests use this crate, and a panic is how a test says what went wrong"
)]

pub mod as_user;
pub mod binary;
pub mod broker;
pub mod card_reader;
pub mod client;
pub mod compare;
pub mod fixture;
pub mod keys;
pub mod mqtt;
pub mod namespace;
pub mod objects;
pub mod old_server;
pub mod openssl;
pub mod piv_card;
pub mod pki;
mod ports;
pub mod proc;
pub mod process;
pub mod program;
pub mod raw_client;
pub mod requests;
pub mod secrets;
pub mod server;
pub mod softhsm;
pub mod terminal;
pub mod text;
pub mod tools;
pub mod tpm;
pub mod verify;
pub mod wait;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Its examples are compiled, so that they stay true.
#[cfg(doctest)]
#[doc = include_str!("../../docs/tedge.md")]
struct TedgePage;
