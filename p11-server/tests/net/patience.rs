//! How long a client may take for its part, and what becomes of it afterwards.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use p11_proto::message::Message;
use p11_proto::{ErrorCode, Request, Response, frame, tedge1};
use p11_server::dispatch;
use p11_server::net::{Limits, Patience};

use crate::frames::every_request;
use crate::stage::{Stage, eventually, sign};

/// One kind of patience that ends soon.
fn stage(patience: Patience) -> Stage {
    Stage::new(Limits {
        patience,
        ..Limits::default()
    })
}

const SOON: Duration = Duration::from_millis(300);

#[test]
fn patience_is_as_documented() {
    let patience = Patience::default();
    assert_eq!(patience.idle, Duration::from_secs(5 * 60));
    assert_eq!(patience.request, Duration::from_secs(5));
    assert_eq!(patience.reply, Duration::from_secs(5));
    assert_eq!(patience.turn, Duration::from_secs(5));
    let limits = Limits::default();
    assert_eq!((limits.all, limits.per_user), (256, 64));
}

#[test]
fn only_what_a_card_may_take_minutes_for_may_take_minutes() {
    for frame in every_request() {
        let request: Request = frame::decode(&frame[4..]).unwrap();
        let seconds = match request {
            Request::CreateKey(_) | Request::InitToken(_) => 600,
            _ => 30,
        };
        let deadline = dispatch::deadline(&request);
        assert_eq!(deadline, Duration::from_secs(seconds), "{}", request.name());
    }
    let old = [
        (tedge1::Request::Ping, 30),
        (
            tedge1::Request::InitToken(tedge1::InitToken {
                label: "label".into(),
                so_pin: None,
                pin: None,
                uri: None,
            }),
            600,
        ),
    ];
    for (request, seconds) in old {
        let deadline = p11_server::tedge1::deadline(&request);
        assert_eq!(deadline, Duration::from_secs(seconds), "{}", request.name());
    }
}

#[test]
fn a_connection_without_a_request_is_closed_in_the_end() {
    let stage = stage(Patience {
        idle: SOON,
        ..Patience::default()
    });
    let mut silent = stage.connect();
    let mut kept = stage.served();
    let began = Instant::now();
    assert_eq!(kept.answer(), None);
    assert_eq!(silent.answer(), None);
    assert!(began.elapsed() >= SOON - Duration::from_millis(50));
    eventually(|| stage.server.connections() == 0);
}

#[test]
fn a_request_that_is_sent_byte_by_byte_has_to_be_there_in_time() {
    let stage = stage(Patience {
        request: SOON,
        ..Patience::default()
    });
    let mut slow = stage.connect();
    slow.greet();
    let began = Instant::now();
    for byte in &every_request()[3] {
        // In the end the server does not listen any more.
        if slow.0.write_all(&[*byte]).is_err() || began.elapsed() > 2 * SOON {
            break;
        }
        thread::sleep(SOON / 10);
    }
    match slow.answer() {
        Some(Response::Error(failure)) => {
            assert_eq!(failure.code, ErrorCode::BadFrame);
            assert!(failure.message.contains("in time"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(slow.answer(), None);
}

#[test]
fn each_request_has_the_whole_time() {
    let patience = Duration::from_secs(2);
    let stage = stage(Patience {
        request: patience,
        ..Patience::default()
    });
    let mut client = stage.connect();
    client.greet();
    for _ in 0..2 {
        let ping = &every_request()[0];
        let (start, end) = ping.split_at(2);
        client.0.write_all(start).unwrap();
        thread::sleep(patience * 6 / 10);
        client.0.write_all(end).unwrap();
        assert!(matches!(client.answer(), Some(Response::Pong(_))));
    }
}

#[test]
fn a_client_that_takes_no_answer_is_closed() {
    let stage = stage(Patience {
        reply: SOON,
        ..Patience::default()
    });
    // One that asked for much, and one that asked often.
    let mut large = stage.connect();
    large.greet();
    large.send(&sign(&vec![0; frame::MAX_LEN - 1000]));
    let mut often = stage.connect();
    often.greet();
    let pings = every_request()[0].repeat(1000);
    while often.0.write_all(&pings).is_ok() {}
    eventually(|| stage.server.connections() == 0);
}

#[test]
fn a_client_that_has_said_all_is_answered_and_let_go() {
    let stage = Stage::new(Limits::default());
    let mut half_closed = stage.connect();
    half_closed.greet();
    half_closed.send(&sign(b"message"));
    half_closed.0.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(half_closed.answer(), Some(Response::Signature(_))));
    assert_eq!(half_closed.answer(), None);
    eventually(|| stage.server.connections() == 0);
}

#[test]
fn stopping_lets_the_running_request_end_and_takes_no_other() {
    let stage = Stage::new(Limits::default());
    let mut idle = stage.served();
    let mut at_work = stage.at_work();
    at_work.send(&sign(b"another"));
    let draining = {
        let server = stage.server.clone();
        thread::spawn(move || server.drain(Duration::from_secs(5)))
    };
    assert_eq!(idle.answer(), None);
    // By now the other knows that its request is the last.
    assert_eq!(stage.server.connections(), 1);
    stage.fake.let_go();
    assert!(matches!(at_work.answer(), Some(Response::Signature(_))));
    assert!(
        at_work.is_closed(),
        "the next request is for the next server"
    );
    assert_eq!(draining.join().unwrap(), 0);
}
