//! How long a client may take for its part, and what becomes of it afterwards.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::net::limits::ConnectionLimits;
use crate::daemon::net::timeouts::IoTimeouts;
use crate::engine::Timeouts;
use p11_proto::{ErrorCode, Response, frame};

use super::super::checks::fake::LEAVE;
use super::fixture::{Fixture, sign, wait_until};
use super::frames::every_request;

/// One of the timeouts ends soon.
fn fixture(timeouts: IoTimeouts) -> Fixture {
    Fixture::new(ConnectionLimits {
        timeouts,
        ..ConnectionLimits::default()
    })
}

const SOON: Duration = Duration::from_millis(300);

#[test]
fn defaults_are_as_documented() {
    let timeouts = IoTimeouts::default();
    assert_eq!(timeouts.idle, Duration::from_secs(5 * 60));
    assert_eq!(timeouts.read, Duration::from_secs(5));
    assert_eq!(timeouts.write, Duration::from_secs(5));
    assert_eq!(timeouts.queue, Duration::from_secs(5));
    let limits = ConnectionLimits::default();
    assert_eq!((limits.all, limits.per_user), (256, 64));
}

#[test]
fn a_connection_without_a_request_is_closed_in_the_end() {
    let fixture = fixture(IoTimeouts {
        idle: SOON,
        ..IoTimeouts::default()
    });
    let mut silent = fixture.connect();
    let mut kept = fixture.served();
    let began = Instant::now();
    assert_eq!(kept.answer(), None);
    assert_eq!(silent.answer(), None);
    assert!(began.elapsed() >= SOON - Duration::from_millis(50));
    wait_until(|| fixture.server.connections() == 0);
}

#[test]
fn a_request_that_is_sent_byte_by_byte_has_to_be_there_in_time() {
    let fixture = fixture(IoTimeouts {
        read: SOON,
        ..IoTimeouts::default()
    });
    let mut slow = fixture.connect();
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
    let time = Duration::from_secs(2);
    let fixture = fixture(IoTimeouts {
        read: time,
        ..IoTimeouts::default()
    });
    let mut client = fixture.connect();
    client.greet();
    for _ in 0..2 {
        let ping = &every_request()[0];
        let (start, end) = ping.split_at(2);
        client.0.write_all(start).unwrap();
        thread::sleep(time * 6 / 10);
        client.0.write_all(end).unwrap();
        assert!(matches!(client.answer(), Some(Response::Pong(_))));
    }
}

#[test]
fn a_client_that_takes_no_answer_is_closed() {
    let fixture = fixture(IoTimeouts {
        write: SOON,
        ..IoTimeouts::default()
    });
    // One that asked for much, and one that asked often.
    let mut large = fixture.connect();
    large.greet();
    large.send(&sign(&vec![0; frame::MAX_LEN - 1000]));
    let mut often = fixture.connect();
    often.greet();
    let pings = every_request()[0].repeat(1000);
    while often.0.write_all(&pings).is_ok() {}
    wait_until(|| fixture.server.connections() == 0);
}

#[test]
fn a_client_that_has_said_all_is_answered_and_closed() {
    let fixture = Fixture::new(ConnectionLimits::default());
    let mut half_closed = fixture.connect();
    half_closed.greet();
    half_closed.send(&sign(b"message"));
    half_closed.0.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(half_closed.answer(), Some(Response::Signature(_))));
    assert_eq!(half_closed.answer(), None);
    wait_until(|| fixture.server.connections() == 0);
}

#[test]
fn stopping_lets_the_running_request_end_and_takes_no_other() {
    let fixture = Fixture::new(ConnectionLimits::default());
    let mut idle = fixture.served();
    let mut at_work = fixture.at_work();
    at_work.send(&sign(b"another"));
    let draining = {
        let server = fixture.server.clone();
        thread::spawn(move || server.drain(Duration::from_secs(5)))
    };
    assert_eq!(idle.answer(), None);
    // By now the other knows that its request is the last.
    assert_eq!(fixture.server.connections(), 1);
    fixture.fake.release();
    assert!(matches!(at_work.answer(), Some(Response::Signature(_))));
    assert!(
        at_work.is_closed(),
        "the next request is for the next server"
    );
    assert_eq!(draining.join().unwrap(), 0);
}

/// An operation is overdue soon.
fn with_deadline(limits: ConnectionLimits) -> Fixture {
    let timeouts = Timeouts {
        request: SOON,
        ..Timeouts::default()
    };
    Fixture::with_timeouts(limits, timeouts)
}

#[test]
fn an_operation_that_is_overdue_is_answered_for_and_gives_its_place_back_at_once() {
    let fixture = with_deadline(ConnectionLimits {
        all: 1,
        ..ConnectionLimits::default()
    });
    for _ in 0..3 {
        let mut overdue = fixture.at_work();
        thread::sleep(SOON);
        fixture.server.close_overdue();
        assert_eq!(fixture.server.connections(), 0);
        match overdue.answer() {
            Some(Response::Error(failure)) => assert_eq!(failure.code, ErrorCode::Timeout),
            other => panic!("{other:?}"),
        }
        assert!(overdue.is_closed());
        fixture.served();
    }
    assert_eq!(fixture.fake.waiting(), 3, "the operations go on");
}

#[test]
fn a_service_learns_that_its_client_is_gone_or_was_answered() {
    let fixture = with_deadline(ConnectionLimits::default());
    let half_closed = fixture.at_work_on(LEAVE);
    half_closed.0.shutdown(Shutdown::Write).unwrap();
    let gone = fixture.at_work_on(LEAVE);
    drop(gone);
    wait_until(|| fixture.fake.waiting() == 1);
    thread::sleep(SOON);
    assert_eq!(fixture.fake.waiting(), 1, "it waits for its answer");
    fixture.server.close_overdue();
    wait_until(|| fixture.fake.waiting() == 0);
}

#[test]
fn an_answer_that_is_not_taken_in_time_is_cut_and_nothing_follows_it() {
    let fixture = Fixture::new(ConnectionLimits {
        timeouts: IoTimeouts {
            write: Duration::from_secs(1),
            ..IoTimeouts::default()
        },
        ..ConnectionLimits::default()
    });
    let mut slow = fixture.connect();
    slow.greet();
    // The answer is longer than what the socket holds, and the next request has begun.
    slow.send(&sign(&vec![b'm'; frame::MAX_LEN - 1000]));
    slow.0.write_all(&[0]).unwrap();
    // The time for it is over, and an answer to what has begun would still be sent.
    thread::sleep(Duration::from_millis(1500));
    let mut taken = Vec::new();
    // The server leaves what it had not read, which resets the connection.
    let _ = slow.0.read_to_end(&mut taken);
    assert!(taken.len() > 1000 && taken.len() < frame::MAX_LEN / 2);
    assert!(
        taken.ends_with(b"mmmm"),
        "{:?}",
        &taken[taken.len() - 100..]
    );
}
