//! What an old server says when it fails, what it cannot do, and replies that are none.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use p11_client::message::{CreateKey, GetCertificates, ImportCertificate, KeySpec, KeyType, Sign};
use p11_client::{Client, Error, ErrorCode, Protocol, SigningKey};
use p11_proto::tedge1::{self, Request, Response};
use p11_proto::{Scheme, frame};

use crate::fake_token::TestKey;
use crate::old_server::OldServer;
use crate::place::Place;

#[test]
fn the_phrases_of_old_servers_have_codes() {
    for (text, code) in [
        (
            "PKCS #11 service failed: Failed to find a signing key: Didn't find a slot to use. The device may be disconnected.",
            ErrorCode::TokenNotFound,
        ),
        (
            "PKCS #11 service failed: Failed to find a signing key: Failed to find a key",
            ErrorCode::KeyNotFound,
        ),
        (
            "PKCS #11 service failed: Failed to find a signing key: The specified PIN is incorrect",
            ErrorCode::PinIncorrect,
        ),
        (
            "Found multiple initialized tokens: a, b",
            ErrorCode::AmbiguousToken,
        ),
        (
            "No token matching the given URI was found",
            ErrorCode::TokenNotFound,
        ),
        ("Failed to parse the received frame", ErrorCode::Unsupported),
        // The first words alone tell nothing.
        (
            "PKCS #11 service failed: Failed to find a signing key: a general error",
            ErrorCode::Unknown,
        ),
    ] {
        let place = Place::new();
        let _server = OldServer::start(&place.socket, move |_| Some(error(text)));
        let told = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap_err();
        assert_eq!(told.to_string(), text);
        assert!(
            matches!(&told, Error::Server(f) if f.code == code),
            "{told:?}"
        );
    }
}

#[test]
fn control_characters_of_the_server_reach_no_terminal() {
    let place = Place::new();
    let _server = OldServer::start(&place.socket, |_| Some(error("no key \u{1b}[2J")));
    let told = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap_err();
    assert_eq!(told.to_string(), r"no key \u{1b}[2J");
}

#[test]
fn what_an_old_server_cannot_do_names_the_version_that_can() {
    let place = Place::new();
    let server = OldServer::with(&place.socket, &TestKey::rsa());
    let client = place.client();
    client.ping().unwrap();
    server.take_requests();
    assert_too_old(&client.status().unwrap_err(), "tell its status");
    let request = GetCertificates::new("pkcs11:");
    let told = client.get_certificates(request).unwrap_err();
    assert_too_old(&told, "read certificates");
    let request = ImportCertificate::new("pkcs11:", vec![0x30, 0x00]);
    let told = client.import_certificate(request).unwrap_err();
    assert_too_old(&told, "store a certificate");
    for (key_type, bits) in [(KeyType::Ec, 521), (KeyType::Ed25519, 0)] {
        let request = create_key(KeySpec::new(key_type, bits));
        assert_too_old(&client.create_key(request).unwrap_err(), "create keys but");
    }
    let request = Sign::new(
        "pkcs11:",
        Scheme::RsaPssSha512.number(),
        vec![1],
        TestKey::rsa().public.identity(),
    );
    assert_too_old(
        &client.sign(request).unwrap_err(),
        "sign with the scheme 0x0806",
    );
    let requests = server.take_requests();
    let only_asked = names(&requests)
        .iter()
        .all(|name| ["Ping", "GetPublicKeyPem"].contains(name));
    assert!(only_asked, "{requests:?}");
}

#[test]
fn a_scheme_that_was_not_offered_is_nonsense() {
    let place = Place::new();
    let _server = OldServer::start(&place.socket, |request| match request {
        Request::ChooseScheme(_) => Some(Response::ChooseScheme(tedge1::ChosenScheme {
            scheme: Some(0x0806),
            algorithm: tedge1::Algorithm::Rsa,
        })),
        _ => None,
    });
    let told = SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap_err();
    assert!(matches!(told, Error::Protocol { .. }), "{told:?}");
}

#[test]
fn a_request_that_was_lost_with_its_connection_is_sent_again() {
    let place = Place::new();
    let key = TestKey::p256();
    let lost = AtomicUsize::new(0);
    let _server = OldServer::start(&place.socket, move |request| {
        // The first two replies do not come.
        let comes = lost.fetch_add(1, Ordering::SeqCst) >= 2;
        comes.then(|| key.answer_in_tedge1(request)).flatten()
    });
    SigningKey::open(&place.client(), "pkcs11:", None, None).unwrap();
}

#[test]
fn a_reply_is_as_long_as_it_may_be_and_no_longer() {
    let text = "a".repeat(frame::MAX_LEN - 5);
    let longest = error(&text).encode().unwrap().to_vec();
    assert_eq!(longest.len(), frame::MAX_LEN);
    let too_long = [&longest[..], &[0]].concat();
    let told = reply_to_ping(longest, Shutdown::Both);
    assert_eq!(told.to_string(), text);
    let told = reply_to_ping(too_long, Shutdown::Both);
    assert!(matches!(told, Error::Protocol { .. }), "{told:?}");
    assert!(told.to_string().contains("too long"), "{told}");
}

#[test]
fn a_reply_without_an_end_runs_into_the_deadline() {
    let pong = Response::Pong.encode().unwrap().to_vec();
    let told = reply_to_ping(pong, Shutdown::Read);
    assert!(matches!(told, Error::Deadline { .. }), "{told:?}");
}

/// What a client makes of a server that replies so, and then shuts down its connection.
fn reply_to_ping(reply: Vec<u8>, end: Shutdown) -> Error {
    let place = Place::new();
    let listener = UnixListener::bind(&place.socket).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        stream.write_all(&reply).unwrap();
        stream.shutdown(end).unwrap();
        stream
    });
    let config = place.config().protocol(Protocol::Tedge1);
    let client = Client::new(config.deadline(Duration::from_secs(1)));
    let told = client.ping().unwrap_err();
    server.join().unwrap();
    told
}

fn create_key(key: KeySpec) -> CreateKey {
    CreateKey::new("pkcs11:", key, "k")
}

pub fn error(text: &str) -> Response {
    Response::Error(text.to_owned())
}

pub fn names(requests: &[Request]) -> Vec<&'static str> {
    requests.iter().map(Request::name).collect()
}

pub fn assert_too_old(error: &Error, what: &str) {
    assert!(matches!(error, Error::TooOld { .. }), "{error:?}");
    let text = error.to_string();
    for part in [what, "tedge-p11-server 0.1"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
