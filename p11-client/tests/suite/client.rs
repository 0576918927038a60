//! The client against a server that answers, closes, restarts, keeps silent or talks nonsense.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use p11_client::message::{Pong, Sign, Signature};
use p11_client::{Client, Error, ErrorCode, Failure, Protocol};
use p11_proto::spki::PublicKey;
use p11_proto::{Request, Response, frame};

use crate::fake_server::{FakeServer, Reaction};
use crate::place::Place;

const SHORT: Duration = Duration::from_millis(300);

/// What ends after [`SHORT`] has ended by then, on a busy machine too.
const LATE: Duration = Duration::from_secs(3);

#[test]
fn one_connection_serves_many_requests() {
    let place = Place::new();
    let server = pong_server(&place);
    let client = place.client();
    for _ in 0..5 {
        assert_eq!(client.ping().unwrap().server, "fake 1");
    }
    assert_eq!(client.clone().ping().unwrap().protocol, 1);
    assert_eq!(server.connections(), 1);
}

#[test]
fn each_request_has_the_whole_deadline() {
    let place = Place::new();
    let server = pong_server(&place);
    let client = Client::new(place.config().deadline(SHORT));
    client.ping().unwrap();
    thread::sleep(SHORT);
    client.ping().unwrap();
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_closed_idle_connection_is_replaced_at_once() {
    let place = Place::new();
    let server = pong_server(&place);
    // No patience at all: a new connection for a kept one that was closed is no repetition.
    let client = Client::new(place.config().retry_for(Duration::ZERO));
    client.ping().unwrap();
    server.close_connections();
    client.ping().unwrap();
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_server_that_closes_after_each_answer_is_served_too() {
    let place = Place::new();
    let server = FakeServer::start(&place.socket, |_| Reaction::AnswerAndClose(pong()));
    let client = Client::new(place.config().retry_for(Duration::ZERO));
    for _ in 0..3 {
        client.ping().unwrap();
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn threads_do_not_wait_for_each_other() {
    const THREADS: usize = 8;
    let place = Place::new();
    let server = FakeServer::start(&place.socket, |_| {
        thread::sleep(SHORT);
        Reaction::Answer(pong())
    });
    let client = place.client();
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| client.ping().unwrap());
        }
    });
    assert!(start.elapsed() < 4 * SHORT, "{:?}", start.elapsed());
    assert_eq!(server.connections(), THREADS);

    // Some of these connections are kept, and used by all.
    client.ping().unwrap();
    assert_eq!(server.connections(), THREADS);
}

#[test]
fn a_restart_of_the_server_is_waited_for() {
    for leave_socket_file in [false, true] {
        let place = Place::new();
        let first = pong_server(&place);
        let client = place.client();
        client.ping().unwrap();
        drop(first);
        if leave_socket_file {
            drop(UnixListener::bind(&place.socket).unwrap());
        }
        let client = thread::spawn(move || client.ping());
        thread::sleep(SHORT);
        assert!(!client.is_finished(), "it gave up early");
        let _ = std::fs::remove_file(&place.socket);
        let _second = pong_server(&place);
        client.join().unwrap().unwrap();
    }
}

#[test]
fn a_request_that_was_lost_with_its_connection_is_sent_again() {
    let place = Place::new();
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = tries.clone();
    let _server = FakeServer::start(&place.socket, move |request| {
        assert!(matches!(request, Request::Sign(_)));
        match counter.fetch_add(1, Ordering::SeqCst) {
            0 => Reaction::Close,
            // Half a frame.
            1 => Reaction::Bytes(vec![0, 0, 0, 9, 0x81]),
            _ => Reaction::Answer(signature()),
        }
    });
    assert_eq!(place.client().sign(sign()).unwrap(), b"signed");
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

#[test]
fn a_request_that_was_left_unread_is_sent_again() {
    let place = Place::new();
    let listener = UnixListener::bind(&place.socket).unwrap();
    let client = Client::new(place.config().protocol(Protocol::V1));
    let ping = thread::spawn(move || client.ping());
    let (unread, _) = listener.accept().unwrap();
    thread::sleep(SHORT);
    std::fs::remove_file(&place.socket).unwrap();
    let _server = pong_server(&place);
    // Now the client reads ECONNRESET.
    drop(unread);
    ping.join().unwrap().unwrap();
}

#[test]
fn patience_ends() {
    let place = Place::new();
    let client = Client::new(place.config().retry_for(SHORT));

    let (error, waited) = timed(|| client.ping().unwrap_err());
    assert!(matches!(error, Error::NoSocket { .. }), "{error:?}");
    assert!((SHORT..LATE).contains(&waited), "{waited:?}");
    assert_says(
        &error,
        &[
            "is tedge-p11-server running",
            place.socket.to_str().unwrap(),
        ],
    );

    drop(UnixListener::bind(&place.socket).unwrap());
    let (error, waited) = timed(|| client.ping().unwrap_err());
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!((SHORT..LATE).contains(&waited), "{waited:?}");
    assert_says(
        &error,
        &["start tedge-p11-server", place.socket.to_str().unwrap()],
    );

    std::fs::remove_file(&place.socket).unwrap();
    let _server = FakeServer::start(&place.socket, |_| Reaction::Close);
    let (error, waited) = timed(|| client.ping().unwrap_err());
    assert!(matches!(error, Error::ConnectionLost), "{error:?}");
    assert!((SHORT..LATE).contains(&waited), "{waited:?}");
}

#[test]
fn the_deadline_ends_patience() {
    let place = Place::new();
    let client = Client::new(place.config().deadline(SHORT));
    let (error, waited) = timed(|| client.ping().unwrap_err());
    assert!(
        matches!(error, Error::NoSocket { .. }),
        "the reason is told: {error:?}"
    );
    assert!(waited < LATE, "{waited:?}");
}

#[test]
fn a_silent_or_slow_server_runs_into_the_deadline() {
    let place = Place::new();
    let slow: fn(Request) -> Reaction = |_| Reaction::Trickle([0, 0, 1, 0].repeat(65));
    for react in [|_| Reaction::Silence, slow] {
        let server = FakeServer::start(&place.socket, react);
        let client = Client::new(place.config().deadline(SHORT));
        let (error, waited) = timed(|| client.ping().unwrap_err());
        assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
        assert!((SHORT..LATE).contains(&waited), "{waited:?}");
        assert_says(&error, &["did not answer within 300ms"]);
        assert_eq!(
            server.connections(),
            1,
            "a request that took too long is not repeated"
        );
    }
}

#[test]
fn an_answer_that_came_too_late_is_not_taken_for_the_next() {
    let place = Place::new();
    let _server = FakeServer::start(&place.socket, |request| match request {
        Request::Sign(_) => {
            thread::sleep(2 * SHORT);
            Reaction::Answer(signature())
        }
        _ => Reaction::Answer(pong()),
    });
    let client = Client::new(place.config().deadline(SHORT));
    client.ping().unwrap();
    assert!(matches!(client.sign(sign()), Err(Error::Deadline { .. })));
    thread::sleep(2 * SHORT);
    client.ping().unwrap();
}

#[test]
fn a_server_that_accepts_nothing_runs_into_the_deadline() {
    let place = Place::new();
    let listener = UnixListener::bind(&place.socket).unwrap();
    let no_queue = nix::sys::socket::Backlog::new(0).unwrap();
    nix::sys::socket::listen(&listener, no_queue).unwrap();
    let client = Client::new(place.config().deadline(SHORT));
    // The first waits in the queue, the others for a place in it.
    for _ in 0..3 {
        let (error, waited) = timed(|| client.ping().unwrap_err());
        assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
        assert!((SHORT..LATE).contains(&waited), "{waited:?}");
    }
}

#[test]
fn a_failure_keeps_code_function_and_ckr() {
    let place = Place::new();
    let failure = Failure::new(ErrorCode::Module, "the token was pulled out; plug it in")
        .function("C_Sign".to_owned())
        .ckr("CKR_DEVICE_REMOVED".to_owned());
    let answer = Response::Error(failure.clone());
    let server = FakeServer::start(&place.socket, move |_| Reaction::Answer(answer.clone()));
    let client = place.client();
    for _ in 0..2 {
        let error = client.sign(sign()).unwrap_err();
        assert_says(&error, &["the token was pulled out; plug it in"]);
        assert!(matches!(error, Error::Server(found) if found == failure));
    }
    assert_eq!(
        server.connections(),
        1,
        "a failed request does not cost the connection"
    );
}

#[test]
fn control_characters_of_the_server_reach_no_terminal() {
    let place = Place::new();
    let _server = FakeServer::start(&place.socket, |_| {
        let message = "no key «\u{1b}[2Jé\n»";
        Reaction::Answer(Response::Error(Failure::new(
            ErrorCode::KeyNotFound,
            message,
        )))
    });
    let error = place.client().ping().unwrap_err();
    assert_eq!(error.to_string(), r"no key «\u{1b}[2Jé\n»");
}

#[test]
fn what_does_not_speak_the_protocol_is_named() {
    let too_long = vec![0xff; 4];
    let unknown = b"\x00\x00\x00\x07\x81\xa4Pung\x80".to_vec();
    let garbage = b"\x00\x00\x00\x01\xc0".to_vec();
    for (bytes, cause) in [
        (too_long, "too long"),
        (unknown, "\"Pung\" is not known"),
        (garbage, "cannot be decoded"),
        (
            frame::encode(&signature()).unwrap().to_vec(),
            "\"Signature\"",
        ),
    ] {
        let place = Place::new();
        let server = FakeServer::start(&place.socket, move |_| Reaction::Bytes(bytes.clone()));
        let error = place.client().ping().unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        assert_says(
            &error,
            &[cause, "does not speak a protocol of tedge-p11-server"],
        );
        assert_eq!(server.connections(), 1, "nonsense is not asked for again");
    }
}

#[test]
fn a_request_that_is_too_long_is_not_sent() {
    let place = Place::new();
    let mut request = sign();
    request.message = vec![0; frame::MAX_LEN].into();
    let error = place.client().sign(request).unwrap_err();
    assert_says(&error, &["the request cannot be sent", "1048576 at most"]);
}

#[test]
fn a_socket_of_another_group_names_the_group() {
    let place = Place::new();
    let path = place.socket.clone();
    drop(UnixListener::bind(&path).unwrap());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o660)).unwrap();
    let stat = Command::new("stat")
        .args(["-c", "%G"])
        .arg(&path)
        .output()
        .unwrap();
    let group = String::from_utf8(stat.stdout).unwrap();
    // Built by hand: these tests may run as root, whom nobody refuses.
    assert_says(
        &Error::PermissionDenied(path),
        &["no permission", "join its group", group.trim()],
    );

    let hidden = PathBuf::from("/nowhere/to/be/found.sock");
    assert_says(&Error::PermissionDenied(hidden), &["its folder is closed"]);
}

fn pong_server(place: &Place) -> FakeServer {
    FakeServer::start(&place.socket, |_| Reaction::Answer(pong()))
}

fn pong() -> Response {
    Response::Pong(Pong::new("fake 1", 1))
}

fn signature() -> Response {
    Response::Signature(Signature::new(b"signed".to_vec()))
}

fn sign() -> Sign {
    let certificate = include_bytes!("data/v1.crt");
    Sign::new(
        "pkcs11:",
        0x0403,
        b"message".to_vec(),
        PublicKey::of_certificate(certificate).unwrap().identity(),
    )
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn assert_says(error: &Error, expected: &[&str]) {
    let text = error.to_string();
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
