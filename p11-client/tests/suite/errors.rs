//! What errors say: of sockets that cannot be used, of refusals, and of malformed answers.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use p11_client::message::{
    ByteBuf, CreateKey, GetCertificates, GetStatus, ImportCertificate, KeySpec, KeyType, OpenedKey,
    Signature,
};
use p11_client::{Client, Error, ErrorCode, Failure, Protocol, SigningKey};
use p11_proto::tedge1::{Algorithm, ChosenScheme, Request as OldRequest, Response as OldResponse};
use p11_proto::{Request, Response, Scheme, frame};

use rustls::sign::SigningKey as _;

use crate::assertions::{assert_error, assert_too_old};
use crate::fake_server::{FakeServer, Reaction, SHORT, TempSocket};
use crate::requests::{call, sign};
use crate::test_key::{TestKey, failure, old_error, pong};

#[test]
fn a_failure_keeps_code_function_and_ckr() {
    let socket = TempSocket::new();
    let message = "the token was pulled out; plug it in";
    let failure = Failure::new(ErrorCode::Module, message)
        .function("C_Sign".to_owned())
        .ckr("CKR_DEVICE_REMOVED".to_owned());
    let answer = Response::Error(failure.clone());
    let server = socket.serve(move |_| answer.clone());
    let client = socket.client();
    for _ in 0..2 {
        let error = client.sign(sign()).unwrap_err();
        assert_error(&error, "Module", &[message]);
        assert!(matches!(error, Error::Server(found) if found == failure));
    }
    // A failed request does not cost the connection, and is not asked again.
    assert_eq!(server.connections(), 1);
    assert_eq!(server.take_requests().len(), 2);
}

#[test]
fn control_characters_of_the_server_reach_no_terminal() {
    let message = "no key «\u{1b}[2Jé\n\u{202e}\u{2066}»";
    let new = |socket: &TempSocket| socket.serve(move |_| failure(ErrorCode::Internal, message));
    let old = |socket: &TempSocket| socket.serve_old(move |_| Some(old_error(message)));
    for serve in [&new as &dyn Fn(&TempSocket) -> FakeServer, &old] {
        let socket = TempSocket::new();
        let _server = serve(&socket);
        let error = socket.client().list_tokens().unwrap_err();
        assert_eq!(error.to_string(), r"no key «\u{1b}[2Jé\n\u{202e}\u{2066}»");
    }
}

#[test]
fn a_server_of_another_user_than_expected_is_sent_nothing() {
    let socket = TempSocket::new();
    let server = socket.serve(|_| pong());
    let own = nix::unistd::getuid().as_raw();
    let config = || socket.config().retry_for(Duration::from_millis(50));
    let client = |uid| Client::new(config().server_uid(uid));
    client(own).ping().unwrap();
    server.take_requests();
    let error = client(own + 1).ping().unwrap_err();
    assert_error(&error, "WrongServer", &[&format!("uid {own} and not")]);
    assert_eq!(server.take_requests().len(), 0);
}

#[test]
fn a_signature_of_a_length_that_the_key_cannot_make_is_refused() {
    for key in TestKey::all() {
        let good = usize::from(key.public.kind().bits() == 255) * 64;
        let wrong = [0, 7, 65, 140, 255, 257, 512];
        for length in wrong.into_iter().filter(|length| *length != good) {
            let socket = TempSocket::new();
            let key = key.clone();
            let (scheme, is_p384) = (key.schemes[0], key.public.kind().bits() == 384);
            let is_ecdsa = key.public.kind().bits() == 256 || is_p384;
            if is_ecdsa && length == 65 {
                continue;
            }
            let _server = socket.serve(move |request| match request {
                Request::Sign(_) => Response::Signature(Signature::new(vec![0x30; length])),
                other => key.answer(other),
            });
            let opened = socket.open("pkcs11:");
            let signer = opened.choose_scheme(&[scheme]).unwrap();
            let error = signer.sign(b"a message").unwrap_err().to_string();
            assert!(
                error.contains("is none of this key"),
                "{scheme:?}, {length}: {error}"
            );
        }
    }
}

#[test]
fn a_malformed_or_unexpected_answer_is_named() {
    for (bytes, cause) in [
        (&[0xff; 4][..], "too long"),
        (b"\x00\x00\x00\x07\x81\xa4Pung\x80", "\"Pung\" is not known"),
        (b"\x00\x00\x00\x01\xc0", "cannot be decoded"),
    ] {
        let socket = TempSocket::new();
        let server = socket.serve(move |_| Reaction::Bytes(bytes));
        assert_protocol_error(&socket.client().ping().unwrap_err(), cause);
        // It is not asked again.
        assert_eq!(server.connections(), 1);
    }

    let socket = TempSocket::new();
    let server = socket.serve(|_| pong());
    let error = socket.client().list_tokens().unwrap_err();
    assert_error(&error, "BadAnswer", &["it was \"Pong\""]);
    assert_eq!(server.take_requests().len(), 1);
}

#[test]
fn a_malformed_reply_to_the_first_ping_is_named() {
    let signature = OldResponse::Sign(vec![1].into()).encode().unwrap();
    for (reply, cause) in [
        (b"HTTP/1.1 400 Bad Request".to_vec(), "not tedge1"),
        (signature.to_vec(), "its answer was \"Sign\""),
    ] {
        assert_protocol_error(&ping_raw(Protocol::Auto, reply), cause);
    }
}

#[test]
fn a_scheme_that_was_not_offered_is_refused() {
    let socket = TempSocket::new();
    let _server = socket.serve_old(|request| match request {
        OldRequest::ChooseScheme(_) => Some(OldResponse::ChooseScheme(ChosenScheme {
            scheme: Some(0x0806),
            algorithm: Algorithm::Rsa,
        })),
        _ => None,
    });
    let error = SigningKey::open(&socket.client(), "pkcs11:", None, None).unwrap_err();
    assert_protocol_error(&error, "a scheme that was not offered");
}

#[test]
fn a_key_that_cannot_be_read_is_refused() {
    let socket = TempSocket::new();
    let mut key = OpenedKey::new("pkcs11:", &TestKey::p256().public, []);
    key.spki = ByteBuf::from([0x30, 0x00]);
    let _server = socket.serve(move |_| Response::Key(key.clone()));
    let error = SigningKey::open(&socket.client(), "pkcs11:", None, None).unwrap_err();
    assert_error(&error, "BadAnswer", &[]);
}

fn assert_protocol_error(error: &Error, cause: &str) {
    let parts = [cause, "does not speak a protocol of tedge-p11-server"];
    assert_error(error, "Protocol", &parts);
}

#[test]
fn a_request_that_is_too_long_is_not_sent() {
    let mut request = sign();
    request.message = vec![0; frame::MAX_LEN].into();
    let error = TempSocket::new().client().sign(request).unwrap_err();
    let parts = ["the request cannot be sent", "1048576 at most"];
    assert_error(&error, "Request", &parts);
}

#[test]
fn a_socket_of_another_group_names_the_group() {
    let socket = TempSocket::new();
    let path = socket.path.clone();
    drop(socket.bind());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o660)).unwrap();
    let stat = Command::new("stat").args(["-c", "%G"]).arg(&path).output();
    let group = String::from_utf8(stat.unwrap().stdout).unwrap();
    // Built by hand: these tests may run as root, whom nobody refuses.
    let parts = ["no permission", "join its group", group.trim()];
    assert_error(&Error::PermissionDenied(path), "PermissionDenied", &parts);

    let hidden = PathBuf::from("/nowhere/to/be/found.sock");
    assert_error(
        &Error::PermissionDenied(hidden),
        "PermissionDenied",
        &["its folder is closed"],
    );
}

#[test]
fn the_texts_of_old_servers_have_codes() {
    for (text, code) in [
        (
            "PKCS #11 service failed: Failed to find a signing key: Didn't find a slot to use. The device may be disconnected.",
            "TokenNotFound",
        ),
        (
            "PKCS #11 service failed: Failed to find a signing key: Failed to find a key",
            "KeyNotFound",
        ),
        (
            "PKCS #11 service failed: Failed to find a signing key: The specified PIN is incorrect",
            "PinIncorrect",
        ),
        ("Found multiple initialized tokens: a, b", "AmbiguousToken"),
        ("No token matching the given URI was found", "TokenNotFound"),
        ("Failed to parse the received frame", "Unsupported"),
        // The first words alone tell nothing.
        (
            "PKCS #11 service failed: Failed to find a signing key: a general error",
            "Unknown",
        ),
    ] {
        let socket = TempSocket::new();
        let _server = socket.serve_old(move |_| Some(old_error(text)));
        let error = SigningKey::open(&socket.client(), "pkcs11:", None, None).unwrap_err();
        assert_eq!((&*error.code(), &*error.to_string()), (code, text));
    }
}

#[test]
fn what_an_old_server_cannot_do_names_the_version_that_can() {
    let uri = "pkcs11:";
    let create =
        |key_type, bits| Request::CreateKey(CreateKey::new(uri, KeySpec::new(key_type, bits), "k"));
    let mut sign = sign();
    sign.scheme = Scheme::RsaPssSha512.number();
    let import = ImportCertificate::new(uri, vec![0x30, 0x00]);
    let socket = TempSocket::new();
    let server = socket.serve_old_key(&TestKey::with_v1_certificate());
    let client = socket.client();
    for (request, what) in [
        (Request::Status(GetStatus::default()), "tell its status"),
        (
            Request::GetCertificates(GetCertificates::new(uri)),
            "read certificates",
        ),
        (Request::ImportCertificate(import), "store a certificate"),
        (create(KeyType::Ec, 521), "create keys but"),
        (create(KeyType::Ed25519, 0), "create keys but"),
        (Request::Sign(sign), "sign with the scheme 0x0806"),
    ] {
        assert_too_old(&call(&client, request).unwrap_err(), what);
    }
    let names = server.take_old_names();
    let harmless = |name| ["Ping", "GetPublicKeyPem"].contains(name);
    assert!(names.iter().all(harmless), "{names:?}");
}

#[test]
fn a_reply_of_an_old_server_is_as_long_as_it_may_be_and_no_longer() {
    let text = "a".repeat(frame::MAX_LEN - 5);
    let longest = old_error(&text).encode().unwrap().to_vec();
    assert_eq!(longest.len(), frame::MAX_LEN);
    let too_long = [&longest[..], &[0]].concat();
    assert_eq!(ping_raw(Protocol::Tedge1, longest).to_string(), text);
    assert_protocol_error(&ping_raw(Protocol::Tedge1, too_long), "too long");
}

#[test]
fn a_reply_of_an_old_server_without_an_end_runs_into_the_deadline() {
    let socket = TempSocket::new();
    let (given_up, was_given_up) = mpsc::channel::<()>();
    let was_given_up = Mutex::new(was_given_up);
    let _server = socket.serve_raw(move |mut stream| {
        stream
            .write_all(&OldResponse::Pong.encode().unwrap())
            .unwrap();
        let _ = was_given_up.lock().unwrap().recv();
    });
    let config = socket.config().protocol(Protocol::Tedge1);
    let client = Client::new(config.deadline(SHORT));
    assert_error(&client.ping().unwrap_err(), "Deadline", &[]);
    drop(given_up);
}

/// The error of a Ping to a server that replies with these bytes.
fn ping_raw(protocol: Protocol, reply: Vec<u8>) -> Error {
    let socket = TempSocket::new();
    let _server = socket.serve_raw(move |mut stream| {
        stream.read_to_end(&mut Vec::new()).unwrap();
        stream.write_all(&reply).unwrap();
    });
    let client = Client::new(socket.config().protocol(protocol));
    client.ping().unwrap_err()
}
