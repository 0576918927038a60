//! Who is served where there are more connections than places. All are of one user here; see the
//! tests of the whole for several.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::net::limits::ConnectionLimits;
use crate::daemon::net::timeouts::IoTimeouts;
use p11_proto::message::ListKeys;
use p11_proto::{ErrorCode, Request, Response, frame, tedge1};

use super::super::checks::fake::LONG;
use super::fixture::{Client, Fixture, sign, wait_until};

/// How long the newest waits in these tests.
const QUEUE: Duration = Duration::from_secs(1);

fn fixture(places: usize) -> Fixture {
    Fixture::new(ConnectionLimits {
        all: 100,
        per_user: places,
        reserve: 0,
        timeouts: IoTimeouts {
            queue: QUEUE,
            ..IoTimeouts::default()
        },
    })
}

#[track_caller]
fn refused(client: &mut Client) {
    match client.answer() {
        Some(Response::Error(failure)) => assert_eq!(failure.code, ErrorCode::Busy),
        other => panic!("not refused but {other:?}"),
    }
    assert!(client.is_closed());
}

#[test]
fn the_one_without_a_complete_request_the_longest_makes_room() {
    let fixture = fixture(3);
    let [mut first, mut second, mut third] = [(); 3].map(|()| fixture.served());
    first.ping().unwrap();
    // The server notes that an answer is gone a little after the client has it.
    thread::sleep(Duration::from_millis(50));
    // Half a request is none.
    second.0.write_all(&[0, 0]).unwrap();
    thread::sleep(Duration::from_millis(50));
    let _fourth = fixture.served();
    assert!(second.is_closed());
    assert!(!first.is_closed() && !third.is_closed());
    let _fifth = fixture.served();
    assert!(third.is_closed());
    first.ping().unwrap();
}

#[test]
fn one_that_never_said_a_word_makes_room_for_one_that_does() {
    let fixture = fixture(2);
    let mut kept = fixture.served();
    let mut silent = fixture.connect();
    wait_until(|| fixture.server.connections() == 2);
    kept.ping().unwrap();
    let mut newest = fixture.served();
    refused(&mut silent);
    kept.ping().unwrap();
    newest.ping().unwrap();
}

#[test]
fn one_at_work_is_never_closed() {
    let fixture = fixture(2);
    let mut at_work = fixture.at_work();
    for _ in 0..5 {
        fixture.served();
    }
    fixture.fake.release();
    assert!(matches!(at_work.answer(), Some(Response::Signature(_))));
}

#[test]
fn where_all_are_at_work_the_newest_waits_then_is_told_so() {
    let fixture = fixture(2);
    let _working = [fixture.at_work(), fixture.at_work()];
    let mut newest = fixture.connect();
    newest.greet();
    let began = Instant::now();
    refused(&mut newest);
    assert!(
        began.elapsed() >= QUEUE - Duration::from_millis(50),
        "it did not wait"
    );
}

#[test]
fn it_is_told_so_in_its_own_protocol() {
    let fixture = fixture(1);
    let _working = fixture.at_work();
    let mut old = fixture.connect();
    let list = tedge1::Request::ListTokens.encode().unwrap();
    old.0.write_all(&list).unwrap();
    old.0.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut old.0, &mut answer).unwrap();
    match tedge1::Response::decode(&answer).unwrap() {
        tedge1::Response::Error(why) => assert!(why.contains("try again"), "{why}"),
        other => panic!("not refused but {other:?}"),
    }
}

#[test]
fn the_newest_that_waits_is_served_when_another_is_done() {
    let fixture = fixture(2);
    let _working = [fixture.at_work(), fixture.at_work()];
    let mut newest = fixture.connect();
    newest.greet();
    newest.send(&sign(b"message"));
    fixture.fake.release();
    assert!(matches!(newest.answer(), Some(Response::Signature(_))));
}

#[test]
fn no_more_wait_than_may_be_served() {
    let fixture = fixture(2);
    let _working = [fixture.at_work(), fixture.at_work()];
    let _waiting = [fixture.connect(), fixture.connect()];
    let mut newest = fixture.connect();
    newest.greet();
    let began = Instant::now();
    refused(&mut newest);
    assert!(began.elapsed() < QUEUE, "it waited");
}

#[test]
fn one_that_does_not_take_its_answer_makes_room() {
    let fixture = Fixture::new(ConnectionLimits {
        per_user: 1,
        ..ConnectionLimits::default()
    });
    let mut stuffed = fixture.connect();
    stuffed.greet();
    // The answer is longer than what the socket holds.
    stuffed.send(&sign(&vec![0; frame::MAX_LEN - 1000]));
    let began = Instant::now();
    fixture.served();
    let waited = began.elapsed();
    assert!(waited < IoTimeouts::default().write / 2, "{waited:?}");
}

#[test]
fn long_answers_that_are_not_taken_have_a_limit_too() {
    // Those that take nothing are waited for as long as the test may last.
    let fixture = Fixture::new(ConnectionLimits {
        timeouts: IoTimeouts {
            write: Duration::from_secs(60),
            ..IoTimeouts::default()
        },
        ..ConnectionLimits::default()
    });
    let list = Request::ListKeys(ListKeys::new(LONG));
    let mut untaken = [(); 8].map(|()| fixture.served());
    for client in &mut untaken {
        client.send(&list);
    }
    // The first few are on their way.
    let mut last = fixture.served();
    wait_until(|| {
        last.send(&list);
        matches!(last.answer(), Some(Response::Error(failure)) if failure.code == ErrorCode::Busy)
    });
    // It goes on, with what is short at once, and with the rest when there is room.
    last.ping().unwrap();
    drop(untaken);
    wait_until(|| {
        last.send(&list);
        matches!(last.answer(), Some(Response::Objects(_)))
    });
}

#[test]
fn who_lists_or_fails_again_and_again_is_answered_more_slowly() {
    let fixture = Fixture::new(ConnectionLimits::default());
    let mut client = fixture.served();
    let list = Request::ListKeys(ListKeys::new("pkcs11:"));
    let began = Instant::now();
    for _ in 0..30 {
        client.send(&list);
        client.answer().unwrap();
        client.0.write_all(b"\0\0\0\x07\x81\xa4Nope\x80").unwrap();
        assert!(matches!(client.answer(), Some(Response::Error(_))));
    }
    // Twenty at once, then one after each 5 ms.
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
}
