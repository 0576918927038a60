//! Which token and which key a URI means, rule by rule, and what the log says of the choice.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which fail by panicking"
)]

mod attributes;
mod choice;
mod identity;
mod key_pairs;
mod key_table;
mod logins;
mod many;
mod not_found;
mod odd_names;
mod requests;
mod scope;
mod token_table;
mod tokens;

use p11_client::{ErrorCode, Failure};
use p11_fault_module::{Faults, Function::C_Login};
use p11_tests::{
    client::refused,
    fixture::{PIN, SO_PIN},
    keys::{Key, KeyKind, KeySpec},
    pki::certificate_for,
    server::{Builder, Server},
    softhsm::{SoftHsm, Token},
};

/// A PIN that the server does not have.
const OTHER_PIN: &str = "736104";

/// A token store, seen through a fault module. Besides the tokens that a test makes it has a slot with one
/// that is not initialised, as SoftHSM always does.
struct Store {
    hsm: SoftHsm,
    faults: Faults,
}

impl Store {
    fn new() -> Self {
        let hsm = SoftHsm::new();
        let faults = Faults::new(hsm.module());
        Self { hsm, faults }
    }

    fn token(&self, label: &str) -> Token {
        self.hsm.init_token(label, PIN, SO_PIN)
    }

    /// A token that the server has no PIN for.
    fn foreign_token(&self, label: &str) -> Token {
        self.hsm.init_token(label, OTHER_PIN, SO_PIN)
    }

    /// A P-256 pair.
    fn key(&self, token: &Token, label: &str, id: u8) -> Key {
        self.key_of(KeyKind::P256, token, label, id)
    }

    fn key_of(&self, kind: KeyKind, token: &Token, label: &str, id: u8) -> Key {
        self.hsm.generate(token, &KeySpec::new(kind, label, &[id]))
    }

    /// Puts a certificate for the key into the token.
    fn certify(&self, token: &Token, key: &Key, label: &str, id: u8) {
        let certificate = certificate_for(&key.spki);
        self.hsm
            .import_certificate(token, label, &[id], &certificate);
    }

    fn server(&self) -> Builder {
        Server::builder()
            .softhsm_with_faults(&self.hsm, &self.faults)
            .pin(PIN)
    }

    /// How often a PIN was sent to any token so far.
    fn logins(&self) -> u64 {
        self.faults.count(C_Login)
    }
}

/// The URI means this key of this token: the reply names it in full, and it is the one that signs.
#[track_caller]
fn assert_opens(server: &Server, uri: &str, token: &Token, key: &Key) {
    let opened = server
        .client()
        .open(uri)
        .unwrap_or_else(|failure| panic!("{uri}: {failure}; the server said:\n{}", server.log()));
    assert_eq!(opened.told().uri, full_uri(token, key), "{uri}");
    assert_eq!(opened.told().spki.as_ref(), key.spki, "{uri}");
    opened
        .sign()
        .unwrap_or_else(|failure| panic!("{uri}: {failure}"));
}

#[track_caller]
fn assert_refused(server: &Server, uri: &str, code: ErrorCode) -> Failure {
    refused(server.client().open(uri), code)
}

/// The URI of a key in SoftHSM that names its token by all that a token says of itself.
fn full_uri(token: &Token, key: &Key) -> String {
    let id: String = key.spec.id.iter().map(|b| format!("%{b:02X}")).collect();
    format!(
        "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={};token={};id={id};object={};type=private",
        token.serial, token.label, key.spec.label
    )
}

/// The lines of the log that contain `text`.
fn log_lines(server: &Server, text: &str) -> Vec<String> {
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains(text));
    lines.map(str::to_owned).collect()
}
