//! The choice of the protocol: once, and again when another server may run.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use p11_client::{Client, ErrorCode, Protocol};
use p11_proto::{frame, tedge1};
use rustls::sign::SigningKey as _;

use crate::assertions::assert_error;
use crate::fake_server::{SHORT, TempSocket};
use crate::requests::{answer_to, call, requests};
use crate::test_key::{TestKey, failure, pong};

#[test]
fn a_new_server_is_asked_once_what_it_speaks() {
    let socket = TempSocket::new();
    let server = socket.serve(|_| pong());
    let client = socket.client();
    for _ in 0..3 {
        assert_eq!(client.ping().unwrap().protocol, 1);
    }
    assert_eq!((server.probes(), server.connections()), (1, 1));
}

#[test]
fn an_old_server_is_asked_once_what_it_speaks() {
    let socket = TempSocket::new();
    let server = socket.serve_old(|_| None);
    let client = socket.client();
    for _ in 0..3 {
        let pong = client.ping().unwrap();
        assert_eq!(pong.protocol, 0);
        assert!(pong.server.contains("tedge1"), "{pong:?}");
    }
    // A Ping to find out, and one for each that was asked for.
    assert_eq!(server.take_old_names(), ["Ping"; 4]);
}

#[test]
fn a_configured_protocol_is_not_asked_for() {
    let socket = TempSocket::new();
    let server = socket.serve(|request| answer_to(&request));
    let client = Client::new(socket.config().protocol(Protocol::V1));
    for (request, _) in requests() {
        call(&client, request).unwrap();
    }
    assert_eq!(server.probes(), 0);
    // The server answers this Ping in tedge1, and nothing else.
    let client = Client::new(socket.config().protocol(Protocol::Tedge1));
    assert_eq!(client.ping().unwrap().protocol, 0);
    assert_eq!(server.probes(), 1);
}

#[test]
fn protocol_1_is_not_spoken_with_an_old_server() {
    let socket = TempSocket::new();
    let _server = socket.serve_old(|_| None);
    let config = socket.config().protocol(Protocol::V1);
    let client = Client::new(config.deadline(SHORT));
    // The old server waits for the end of the request, which does not come.
    let error = client.ping().unwrap_err();
    assert_error(&error, "Deadline", &["does not speak the protocol"]);
}

#[test]
fn a_key_signs_on_when_an_older_or_newer_server_takes_over() {
    let socket = TempSocket::new();
    let token = TestKey::p256();
    let new = socket.serve_key(&token);
    let key = socket.open("pkcs11:object=k");
    let signer = key.choose_scheme(&token.schemes).unwrap();
    signer.sign(b"message").unwrap();
    drop(new);

    let old = socket.serve_old_key(&token);
    for _ in 0..2 {
        signer.sign(b"message").unwrap();
    }
    let mut names = old.take_old_names();
    names.retain(|name| *name == "Ping");
    assert_eq!(names.len(), 1);
    drop(old);

    // A client that finds the new server at once would not see that the old one is gone, and go on in
    // tedge1 until a request is lost. So this one looks for a server before there is one.
    let signing = thread::spawn(move || signer.sign(b"message").unwrap());
    thread::sleep(SHORT);
    let newest = socket.serve_key(&token);
    signing.join().unwrap();
    assert_eq!((newest.probes(), newest.connections()), (1, 1));
}

#[test]
fn a_server_that_does_not_speak_tedge1_says_so_in_protocol_1() {
    let socket = TempSocket::new();
    let _server = socket.serve_raw(|mut stream| {
        let answer = if is_tedge1(stream) {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            let ping = tedge1::Request::Ping.encode().unwrap();
            assert_eq!(rest, ping[1..]);
            failure(ErrorCode::BadFrame, "this is not protocol 1")
        } else {
            let mut rest = [0; 3];
            stream.read_exact(&mut rest).unwrap();
            assert_eq!(rest, frame::PREAMBLE[1..]);
            frame::read(&mut stream).unwrap();
            pong()
        };
        frame::write(&mut stream, &answer).unwrap();
    });
    socket.client().ping().unwrap();
}

#[test]
fn a_server_with_too_many_connections_says_so_with_a_code() {
    let busy = || failure(ErrorCode::Busy, "too many connections");
    let in_protocol1 = frame::encode(&busy()).unwrap().to_vec();
    let in_tedge1 = tedge1::Response::Error("PKCS #11 service failed: busy".to_owned());
    let in_tedge1 = in_tedge1.encode().unwrap().to_vec();
    // If it sees that the client speaks tedge1, it may say it in tedge1.
    for to_probe in [in_protocol1, in_tedge1] {
        for protocol in [Protocol::Auto, Protocol::V1, Protocol::Tedge1] {
            let socket = TempSocket::new();
            let to_probe = to_probe.clone();
            // Closes with all but the first byte unread, so that the client's connection is reset.
            let _server = socket.serve_raw(move |mut stream| {
                if is_tedge1(stream) && protocol == Protocol::Auto {
                    stream.write_all(&to_probe).unwrap();
                } else {
                    frame::write(&mut stream, &busy()).unwrap();
                }
            });
            let config = socket.config().protocol(protocol);
            let client = Client::new(config.busy_for(Duration::ZERO));
            assert_error(&client.ping().unwrap_err(), "Busy", &[]);
        }
    }
}

/// Whether the first byte is that of tedge1.
fn is_tedge1(mut stream: &UnixStream) -> bool {
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    assert!([tedge1::VERSION, frame::PREAMBLE[0]].contains(&first[0]));
    first == [tedge1::VERSION]
}
