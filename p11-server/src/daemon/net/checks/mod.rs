//! What must hold for any bytes of a client: the body of the fuzz target `exchange`, and of tests.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a check fails by panicking"
)]

pub(crate) mod fake;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};

use self::fake::Fake;
use super::connection::Connection;
use super::handler::Handler;
use super::timeouts::IoTimeouts;
use crate::daemon::peer::Peer;
use crate::daemon::policy::Policy;
use crate::daemon::request::Served;
use crate::engine::Timeouts;
use p11_proto::{Error, Request, Response, frame, tedge1};

/// Longer input may not fit into the buffers of a socket that nobody reads, nor may its answers.
const LONGEST: usize = 8192;

/// One connection: a client says this and no more. It is answered in full, in its own protocol, and
/// with an error where it cannot be understood. Answers how many messages were.
pub fn exchange(input: &[u8]) -> usize {
    let input = input.get(..LONGEST).unwrap_or(input);
    let answer = answer(input);
    match input.first() {
        None => assert!(answer.is_empty(), "{answer:x?}"),
        Some(&tedge1::VERSION) => as_tedge1(input, &answer),
        Some(_) => return as_protocol1(input, &answer),
    }
    1
}

/// All that the server answers to a client that says this, then shuts down its writing half.
pub fn answer(input: &[u8]) -> Vec<u8> {
    static HANDLER: LazyLock<Handler> = LazyLock::new(|| {
        let service = Arc::new(Fake::default());
        Handler::new(Served::new(service, Policy::default()), Timeouts::default())
    });
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    client.write_all(input).expect("room in the buffer");
    client.shutdown(Shutdown::Write).expect("an open socket");
    let peer = Peer::of(&server).expect("a peer");
    let connection = Connection::new(server, peer);
    // How the connection ended is of no interest: the client sees what was answered.
    let _ = HANDLER.handle_connection(&connection, IoTimeouts::default(), None);
    drop(connection);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an answer");
    answer
}

fn as_tedge1(input: &[u8], answer: &[u8]) {
    let response = tedge1::Response::decode(answer).expect("one response of tedge1");
    let understood = tedge1::Request::decode(input).is_ok();
    let refused = matches!(&response, tedge1::Response::Error(why)
        if why.starts_with("Failed to parse the received frame"));
    assert_eq!(understood, !refused, "{response:?}");
}

fn as_protocol1(input: &[u8], mut answer: &[u8]) -> usize {
    let mut count = 0;
    let mut answered = || {
        let body = frame::read(&mut answer).expect("a whole frame")?;
        count += 1;
        Some(frame::decode::<Response>(&body).expect("a response"))
    };
    let refused = |response: Option<Response>| {
        assert!(matches!(response, Some(Response::Error(_))), "{response:?}");
    };
    let (preamble, mut rest) = input.split_at(input.len().min(frame::PREAMBLE.len()));
    if preamble != frame::PREAMBLE {
        refused(answered());
        assert_eq!(answered(), None);
        return count;
    }
    loop {
        match frame::read(&mut rest) {
            Ok(None) => break,
            // One that is too long for its kind is refused before its end.
            Err(Error::Truncated) => {
                if let Some(answer) = answered() {
                    refused(Some(answer));
                }
                break;
            }
            Err(_) => {
                refused(answered());
                break;
            }
            Ok(Some(body)) => match frame::decode::<Request>(&body) {
                Ok(_) => assert!(answered().is_some()),
                Err(Error::UnknownMessage(_) | Error::Field { .. }) => refused(answered()),
                Err(_) => {
                    refused(answered());
                    break;
                }
            },
        }
    }
    assert_eq!(answered(), None);
    count
}
