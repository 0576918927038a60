//! How long is waited for whom: for servers that are busy or gone, for slow tokens, and what the log tells of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use p11_client::message::{InitToken, Signature};
use p11_client::{Client, ErrorCode, Failure};
use p11_proto::Response;

use crate::assertions::assert_error;
use crate::fake_server::{Reaction, SHORT, TempSocket};
use crate::handshake::logged;
use crate::requests::{pin, sign};
use crate::test_key::{failure, pong};

fn busy() -> Response {
    failure(ErrorCode::Busy, "too many connections")
}

#[test]
fn a_busy_server_is_asked_again_until_it_has_time() {
    let socket = TempSocket::new();
    let asked = AtomicUsize::new(0);
    let _server = socket.serve(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0..4 => Reaction::AnswerAndClose(busy()),
        _ => pong().into(),
    });
    socket.client().ping().unwrap();
}

#[test]
fn a_server_that_stays_busy_is_told_as_busy_when_the_time_is_up() {
    for then_silent in [false, true] {
        let socket = TempSocket::new();
        let asked = AtomicUsize::new(0);
        let _server = socket.serve(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            1.. if then_silent => Reaction::Silence,
            _ => busy().into(),
        });
        let client = Client::new(socket.config().deadline(2 * SHORT));
        let error = client.ping().unwrap_err();
        assert_error(&error, "Busy", &[]);
        assert!(error.is_busy());
    }
}

#[test]
fn a_change_is_not_repeated_by_itself_where_the_server_is_busy() {
    let socket = TempSocket::new();
    let server = socket.serve(|_| busy());
    let init = InitToken::new("t").pin(pin());
    let error = socket.client().init_token(init).unwrap_err();
    assert_error(&error, "Busy", &[]);
    assert_eq!(server.take_requests().len(), 1);
}

#[test]
fn a_slow_signature_is_a_warning_with_its_duration_and_a_quick_one_is_none() {
    let socket = TempSocket::new();
    let asked = AtomicUsize::new(0);
    let _server = socket.serve(move |_| {
        thread::sleep(SHORT);
        match asked.fetch_add(1, Ordering::SeqCst) {
            0..2 => Response::Signature(Signature::new(vec![1])),
            _ => Response::Error(Failure::new(ErrorCode::Timeout, "it was too slow")),
        }
    });
    let quick = Client::new(socket.config().slow_signature(Duration::from_secs(60)));
    let slow = Client::new(socket.config().slow_signature(SHORT));
    let (_, log) = logged(|| quick.sign(sign()).unwrap());
    assert_eq!(log, "");
    let mut full = sign();
    // As a key has it whose id is not of digits.
    full.uri = "pkcs11:token=t;object=k;id=%AB%CD?pin-value=sesame".into();
    let (_, log) = logged(|| slow.sign(full.clone()).unwrap());
    let key = "a signature of pkcs11:token=t;object=k;id=%AB%CD?<REDACTED> took ";
    for part in ["WARN", key, "s: a peer may"] {
        assert!(log.contains(part), "{part:?} is not in: {log}");
    }
    let (_, log) = logged(|| slow.sign(sign()).unwrap_err());
    assert!(
        log.contains("WARN") && log.contains("it was too slow"),
        "{log}"
    );
}

#[test]
fn who_waits_for_a_server_that_is_gone_is_told_so_while_it_waits() {
    let socket = TempSocket::new();
    let client = Client::new(socket.config().retry_for(Duration::from_millis(2500)));
    let (_, log) = logged(|| client.ping().unwrap_err());
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains("WARN") && log.contains("still trying"),
        "{log}"
    );
}
