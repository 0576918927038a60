//! Which protocol is spoken: found out once, and again when the server may be another one.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use p11_client::message::Pong;
use p11_client::{Client, Error, ErrorCode, Failure, Protocol, SigningKey};
use p11_proto::{Request, Response, frame, tedge1};
use rustls::sign::SigningKey as _;

use crate::fake_server::{FakeServer, Reaction};
use crate::fake_token::TestKey;
use crate::old_server::OldServer;
use crate::place::Place;

#[test]
fn a_new_server_is_asked_once_what_it_speaks() {
    let place = Place::new();
    let server = new_server(&place, &TestKey::p256());
    let client = place.client();
    for _ in 0..3 {
        assert_eq!(client.ping().unwrap().protocol, 1);
    }
    assert_eq!((server.probes(), server.connections()), (1, 1));
}

#[test]
fn an_old_server_is_asked_once_what_it_speaks() {
    let place = Place::new();
    let server = OldServer::with(&place.socket, &TestKey::p256());
    let client = place.client();
    for _ in 0..3 {
        let pong = client.ping().unwrap();
        assert_eq!(pong.protocol, 0);
        assert!(pong.server.contains("tedge1"), "{pong:?}");
    }
    // A Ping to find out, and one for each that was asked for.
    assert_eq!(server.take_requests(), vec![tedge1::Request::Ping; 4]);
}

#[test]
fn a_forced_protocol_is_not_asked_for() {
    let place = Place::new();
    let server = new_server(&place, &TestKey::p256());
    Client::new(place.config().protocol(Protocol::V1))
        .ping()
        .unwrap();
    assert_eq!((server.probes(), server.connections()), (0, 1));
    // The new server speaks tedge1 as well; here all that it knows of it is Ping.
    let pong = Client::new(place.config().protocol(Protocol::Tedge1)).ping();
    assert_eq!(pong.unwrap().protocol, 0);
    assert_eq!((server.probes(), server.connections()), (1, 1));
}

#[test]
fn protocol_1_is_not_forced_upon_an_old_server() {
    let place = Place::new();
    let _server = OldServer::with(&place.socket, &TestKey::p256());
    let config = place.config().protocol(Protocol::V1);
    let client = Client::new(config.deadline(Duration::from_millis(300)));
    // The old server waits for the end of the request, which does not come.
    let error = client.ping().unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("does not speak the protocol"), "{text}");
}

#[test]
fn a_key_signs_on_when_the_server_is_exchanged_for_an_older_or_newer_one() {
    let place = Place::new();
    let token = TestKey::p256();
    let new = new_server(&place, &token);
    let key = SigningKey::open(&place.client(), "pkcs11:object=k", None, None).unwrap();
    let sign = || {
        let signer = key.choose_scheme(&token.schemes).unwrap();
        signer.sign(b"message").unwrap()
    };
    sign();
    drop(new);

    let old = OldServer::with(&place.socket, &token);
    sign();
    sign();
    let pings = |requests: Vec<tedge1::Request>| {
        let pings = requests.iter().filter(|r| **r == tedge1::Request::Ping);
        pings.count()
    };
    assert_eq!(pings(old.take_requests()), 1);
    drop(old);

    // The client meets no trouble when it finds the new server in the place of the old one, and so
    // goes on in tedge1, until a request is lost.
    let client = thread::spawn(move || sign_while_away(&key));
    thread::sleep(Duration::from_millis(300));
    let newest = new_server(&place, &token);
    client.join().unwrap();
    assert_eq!((newest.probes(), newest.connections()), (1, 1));
}

fn sign_while_away(key: &SigningKey) {
    let signer = key.choose_scheme(key.schemes()).unwrap();
    signer.sign(b"message").unwrap();
}

#[test]
fn a_server_that_no_longer_speaks_tedge1_says_so_in_protocol_1() {
    let place = Place::new();
    let listener = UnixListener::bind(&place.socket).unwrap();
    let client = place.client();
    let server = thread::spawn(move || {
        let (mut probe, _) = listener.accept().unwrap();
        probe.read_to_end(&mut Vec::new()).unwrap();
        let failure = Failure::new(ErrorCode::BadFrame, "this is not protocol 1");
        frame::write(&mut probe, &Response::Error(failure)).unwrap();
        drop(probe);
        let (mut stream, _) = listener.accept().unwrap();
        let mut preamble = [0; 4];
        stream.read_exact(&mut preamble).unwrap();
        assert_eq!(preamble, frame::PREAMBLE);
        frame::read(&mut stream).unwrap();
        frame::write(&mut stream, &pong()).unwrap();
    });
    client.ping().unwrap();
    server.join().unwrap();
}

#[test]
fn a_server_without_a_place_left_says_so_with_a_code() {
    let busy = Failure::new(ErrorCode::Busy, "too many connections");
    let in_protocol1 = frame::encode(&Response::Error(busy)).unwrap().to_vec();
    let in_tedge1 = tedge1::Response::Error("PKCS #11 service failed: busy".to_owned());
    let in_tedge1 = in_tedge1.encode().unwrap().to_vec();
    // Where it sees that the client speaks tedge1 it may say it so.
    for to_probe in [&in_protocol1, &in_tedge1] {
        for protocol in [Protocol::Auto, Protocol::V1, Protocol::Tedge1] {
            let place = Place::new();
            let listener = UnixListener::bind(&place.socket).unwrap();
            let (to_probe, to_request) = (to_probe.clone(), in_protocol1.clone());
            let full = thread::spawn(move || {
                if protocol == Protocol::Auto {
                    refuse(&listener, &to_probe);
                }
                refuse(&listener, &to_request);
            });
            let error = Client::new(place.config().protocol(protocol))
                .ping()
                .unwrap_err();
            assert!(
                matches!(&error, Error::Server(failure) if failure.code == ErrorCode::Busy),
                "{protocol:?}: {error:?}"
            );
            full.join().unwrap();
        }
    }
}

/// Answers without having read more than the first byte, so that the client's connection is reset.
fn refuse(listener: &UnixListener, answer: &[u8]) {
    let (mut stream, _): (UnixStream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream.write_all(answer).unwrap();
}

#[test]
fn what_answers_a_ping_with_nonsense_is_named() {
    let sign = tedge1::Response::Sign(vec![1].into()).encode().unwrap();
    for (reply, cause) in [
        (&b"HTTP/1.1 400 Bad Request"[..], "not tedge1"),
        (&sign, "its answer was \"Sign\""),
    ] {
        let place = Place::new();
        let listener = UnixListener::bind(&place.socket).unwrap();
        let reply = reply.to_vec();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
            stream.write_all(&reply).unwrap();
        });
        let error = place.client().ping().unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(cause), "{text}");
        server.join().unwrap();
    }
}

fn new_server(place: &Place, key: &TestKey) -> FakeServer {
    let key = key.clone();
    FakeServer::start(&place.socket, move |request| {
        Reaction::Answer(match request {
            Request::Ping(_) => pong(),
            request => key.answer(request),
        })
    })
}

fn pong() -> Response {
    Response::Pong(Pong::new("fake 1", 1))
}
