//! Connections, retries and deadlines: servers that close, restart, hang or answer late.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use p11_client::message::InitToken;
use p11_client::{Client, Protocol};
use p11_proto::Request;

use crate::assertions::assert_error;
use crate::fake_server::{Reaction, SHORT, TempSocket};
use crate::requests::{answer_to, call, pin, sign};
use crate::test_key::{TestKey, pong};

/// What ends after [`SHORT`] has ended by then, on a busy machine too.
const LATE: Duration = Duration::from_secs(3);

#[test]
fn one_connection_serves_many_requests() {
    let socket = TempSocket::new();
    let server = socket.serve(|_| pong());
    let client = socket.client();
    for _ in 0..5 {
        assert_eq!(client.ping().unwrap().server, "fake 1");
    }
    assert_eq!(client.clone().ping().unwrap().protocol, 1);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_closed_idle_connection_is_replaced_at_once() {
    let socket = TempSocket::new();
    let server = socket.serve(|_| pong());
    // Without retries: a new connection in place of a closed idle one is none.
    let client = Client::new(socket.config().retry_for(Duration::ZERO));
    client.ping().unwrap();
    server.close_connections();
    client.ping().unwrap();
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_server_that_closes_after_each_answer_is_served_too() {
    let socket = TempSocket::new();
    let server = socket.serve(|_| Reaction::AnswerAndClose(pong()));
    let client = Client::new(socket.config().retry_for(Duration::ZERO));
    for _ in 0..3 {
        client.ping().unwrap();
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn threads_do_not_wait_for_each_other() {
    const THREADS: usize = 8;
    let socket = TempSocket::new();
    let all_sent = Barrier::new(THREADS);
    let asked = AtomicUsize::new(0);
    let server = socket.serve(move |_| {
        if asked.fetch_add(1, Ordering::SeqCst) < THREADS {
            all_sent.wait();
        }
        pong()
    });
    let client = socket.client();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| client.ping().unwrap());
        }
    });
    assert_eq!(server.connections(), THREADS);

    // Some of these connections are kept, and used by all.
    client.ping().unwrap();
    assert_eq!(server.connections(), THREADS);
}

#[test]
fn a_restart_of_the_server_is_waited_for() {
    for leave_socket_file in [false, true] {
        let socket = TempSocket::new();
        let first = socket.serve(|_| pong());
        let client = socket.client();
        client.ping().unwrap();
        drop(first);
        if leave_socket_file {
            drop(socket.bind());
        }
        let client = thread::spawn(move || client.ping());
        thread::sleep(SHORT);
        assert!(!client.is_finished(), "it gave up early");
        let _ = std::fs::remove_file(&socket.path);
        let _second = socket.serve(|_| pong());
        client.join().unwrap().unwrap();
    }
}

#[test]
fn a_request_that_was_lost_with_its_connection_is_sent_again() {
    let socket = TempSocket::new();
    let key = TestKey::p256();
    let asked = AtomicUsize::new(0);
    let server = socket.serve(move |request| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Reaction::Close,
        1 => Reaction::Bytes(&[0, 0, 0, 9, 0x81]), // half a frame
        _ => key.answer(request).into(),
    });
    socket.open("pkcs11:");
    let requests = server.take_requests();
    assert!(
        matches!(&requests[..], [Request::OpenKey(first), Request::OpenKey(_), Request::OpenKey(last)] if first == last)
    );
    drop(server);

    let key = TestKey::p256();
    let asked = AtomicUsize::new(0);
    let _old = socket.serve_old(move |request| {
        let lost = asked.fetch_add(1, Ordering::SeqCst) < 2;
        key.old_answer(request).filter(|_| !lost)
    });
    socket.open("pkcs11:");
}

#[test]
fn a_request_that_was_left_unread_is_sent_again() {
    let socket = TempSocket::new();
    let listener = socket.bind();
    let client = Client::new(socket.config().protocol(Protocol::V1));
    let ping = thread::spawn(move || client.ping());
    let (mut stream, _) = listener.accept().unwrap();
    // The preamble and one byte of the frame: the rest is there, too.
    stream.read_exact(&mut [0; 5]).unwrap();
    std::fs::remove_file(&socket.path).unwrap();
    let _server = socket.serve(|_| pong());
    // Now the client reads ECONNRESET.
    drop(stream);
    ping.join().unwrap().unwrap();
}

#[test]
fn retries_end() {
    let socket = TempSocket::new();
    let client = Client::new(socket.config().retry_for(SHORT));
    let path = socket.path.to_str().unwrap();
    let assert_fails = |code, part| {
        let (error, waited) = timed(|| client.ping().unwrap_err());
        assert_error(&error, code, &[part]);
        assert!((SHORT..LATE).contains(&waited), "{waited:?}");
        error.to_string()
    };
    let text = assert_fails("NoSocket", "is tedge-p11-server running");
    assert!(text.contains(path), "{text}");

    drop(UnixListener::bind(path).unwrap());
    let text = assert_fails("Refused", "start tedge-p11-server");
    assert!(text.contains(path), "{text}");

    std::fs::remove_file(path).unwrap();
    let _server = socket.serve(|_| Reaction::Close);
    assert_fails("ConnectionLost", "closed the connection");
}

#[test]
fn the_deadline_ends_retries() {
    let socket = TempSocket::new();
    let client = Client::new(socket.config().deadline(3 * SHORT));
    let (error, waited) = timed(|| client.ping().unwrap_err());
    assert_error(&error, "NoSocket", &[]); // not Deadline, which would not tell why
    assert!(waited < LATE, "{waited:?}");
}

#[test]
fn a_silent_or_slow_server_runs_into_the_deadline() {
    let slow: fn(Request) -> Reaction = |_| Reaction::Trickle([0, 0, 1, 0].repeat(65));
    for react in [|_| Reaction::Silence, slow] {
        let socket = TempSocket::new();
        let server = socket.serve(react);
        let config = socket.config().protocol(Protocol::V1);
        assert_runs_into_the_deadline(&Client::new(config.deadline(SHORT)));
        assert_eq!(server.connections(), 1, "it was sent again");
    }
}

#[test]
fn a_client_within_a_limit_gives_up_sooner_than_its_configuration_says() {
    let socket = TempSocket::new();
    let _server = socket.serve(|_| Reaction::Silence);
    let client = Client::new(socket.config().protocol(Protocol::V1));
    assert_runs_into_the_deadline(&client.clone().within(SHORT));
    let short = Client::new(socket.config().protocol(Protocol::V1).deadline(SHORT));
    assert_runs_into_the_deadline(&short.within(Duration::from_secs(60)));
}

#[test]
fn a_server_that_accepts_nothing_runs_into_the_deadline() {
    let socket = TempSocket::new();
    let listener = socket.bind();
    let no_queue = nix::sys::socket::Backlog::new(0).unwrap();
    nix::sys::socket::listen(&listener, no_queue).unwrap();
    let client = Client::new(socket.config().deadline(SHORT));
    // The first waits in the queue, the others for a place in it.
    for _ in 0..3 {
        assert_runs_into_the_deadline(&client);
    }
}

fn assert_runs_into_the_deadline(client: &Client) {
    let (error, waited) = timed(|| client.ping().unwrap_err());
    assert_error(&error, "Deadline", &["did not answer within 200ms"]);
    assert!((SHORT..LATE).contains(&waited), "{waited:?}");
}

#[test]
fn an_answer_that_came_too_late_is_not_taken_for_the_next() {
    let init = InitToken::new("t").pin(pin());
    for (late, code) in [
        (Request::InitToken(init), "OutcomeUnknown"),
        (Request::Sign(sign()), "Deadline"),
    ] {
        let socket = TempSocket::new();
        let (given_up, was_given_up) = mpsc::channel::<()>();
        let was_given_up = Mutex::new(was_given_up);
        let is_late = late.clone();
        let _server = socket.serve(move |request| {
            if request == is_late {
                let _ = was_given_up.lock().unwrap().recv();
            }
            answer_to(&request)
        });
        let config = socket.config().deadline(SHORT).long_deadline(SHORT);
        let client = Client::new(config);
        client.ping().unwrap();
        let error = call(&client, late).unwrap_err();
        assert_error(&error, code, &["did not answer"]);
        drop(given_up);
        client.ping().unwrap();
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
