//! Clients with default settings sign while the real server is killed with SIGKILL and started again,
//! over and over: no signature fails.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use p11_client::{Client, Config, Protocol, SigningKey, message::Class};
use p11_tests::{
    keys::{Key, KeyKind, KeySpec},
    pki::certificate_for,
    server::{Builder, Server},
    softhsm::SoftHsm,
    verify::verifies,
};
use rustls::{SignatureScheme, sign::SigningKey as _};

/// No digits alone, which the time of a line in the log may happen to show.
const PIN: &str = "user's PIN";
const SO_PIN: &str = "officer's PIN";
const LIVES: usize = 10;
/// Of each client.
const SIGNATURES_IN_A_LIFE: u32 = 12;
const CLIENTS: usize = 4;

#[test]
fn no_signature_fails_while_a_server_with_a_socket_of_its_own_is_killed() {
    sign_through_kills(Protocol::Auto, with_its_own_socket);
}

#[test]
fn no_signature_fails_while_a_server_is_killed_that_is_asked_in_tedge1() {
    sign_through_kills(Protocol::Tedge1, with_its_own_socket);
}

#[test]
fn no_signature_fails_while_a_server_with_a_socket_from_systemd_is_killed() {
    sign_through_kills(Protocol::Auto, with_a_socket_from_systemd);
}

/// The server's socket stays when it is killed, and the next server replaces it.
fn with_its_own_socket(builder: Builder, socket: &Path, life: &dyn Fn()) {
    let _killed_when_dropped = builder
        .args(["--socket-path".as_ref(), socket.as_os_str()])
        .expect_socket(socket)
        .spawn();
    life();
}

fn with_a_socket_from_systemd(builder: Builder, socket: &Path, life: &dyn Fn()) {
    let _killed_when_dropped = builder.activate(socket);
    life();
}

/// Clients sign all the time, and whenever each has signed a little the server is killed.
fn sign_through_kills(protocol: Protocol, live: impl Fn(Builder, &Path, &dyn Fn())) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, SO_PIN);
    let key = hsm.generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
    // The clients' timeout is not for the compiler.
    drop(Server::builder());
    let over = AtomicBool::new(false);
    let signatures = [const { AtomicU32::new(0) }; CLIENTS];
    thread::scope(|scope| {
        let (over, key) = (&over, &key);
        let clients = signatures.each_ref().map(|signatures| {
            let client = Client::new(Config::new(&socket).protocol(protocol));
            scope.spawn(move || sign_until(over, client, key, signatures))
        });
        let all_well = || clients.iter().all(|client| !client.is_finished());
        let life = || {
            let count = || {
                signatures
                    .each_ref()
                    .map(|count| count.load(Ordering::SeqCst))
            };
            let before = count();
            let signed = || {
                count()
                    .into_iter()
                    .zip(before)
                    .map(|(now, before)| now - before)
            };
            while signed().any(|signed| signed < SIGNATURES_IN_A_LIFE) && all_well() {
                thread::sleep(Duration::from_millis(1));
            }
        };
        for _ in 0..LIVES {
            live(Server::builder().softhsm(&hsm).pin(PIN), &socket, &life);
        }
        over.store(true, Ordering::SeqCst);
        let last = || {
            while !clients.iter().all(|client| client.is_finished()) {
                thread::sleep(Duration::from_millis(1));
            }
        };
        live(Server::builder().softhsm(&hsm).pin(PIN), &socket, &last);
    });
}

fn sign_until(over: &AtomicBool, client: Client, expected: &Key, signatures: &AtomicU32) {
    let key = SigningKey::open(&client, "pkcs11:object=key", None, None).unwrap();
    let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    while !over.load(Ordering::SeqCst) {
        let signature = key
            .choose_scheme(&[scheme])
            .unwrap()
            .sign(b"message")
            .unwrap();
        assert!(verifies(
            &expected.spki,
            scheme.into(),
            b"message",
            &signature
        ));
        signatures.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_key_of_which_no_token_tells_the_public_key_signs_with_the_next_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("p11.sock");
    let hsm = SoftHsm::new();
    let token = hsm.init_token("device", PIN, SO_PIN);
    let key = hsm.generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
    hsm.delete(&token, Class::Public, &[1]);
    let start = || {
        let server = Server::builder().softhsm(&hsm).pin(PIN);
        let server = server.args(["--socket-path".as_ref(), socket.as_os_str()]);
        server.expect_socket(&socket).start()
    };
    let first = start();
    let certificate = certificate_for(&key.spki).into();
    let client = Client::new(Config::new(&socket));
    let opened = SigningKey::open(&client, "pkcs11:", None, Some(&certificate)).unwrap();
    let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    let sign = || {
        let signature = opened.choose_scheme(&[scheme]).unwrap().sign(b"m").unwrap();
        assert!(verifies(&key.spki, scheme.into(), b"m", &signature));
    };
    sign();
    drop(first);
    let _next = start();
    sign();
}
