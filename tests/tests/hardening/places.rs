//! Places are shared so that who has none is served, beside any number of greedy users; and who is turned away is told.

use std::{
    io::Write,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use p11_client::ErrorCode;
use p11_fault_module::{Function::C_Sign, on};
use p11_proto::{Request, Response, frame, message::Ping};
use p11_tests::{
    as_user::AsUser,
    client::ClientKey,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    raw_client::{RawClient, ask_tedge1},
    server::Server,
    wait::{StopOnDrop, wait_until},
};

fn sign(key: &ClientKey) -> Request {
    Request::Sign(key.request(key.told().schemes[0], b"a message"))
}

#[test]
fn a_newcomer_is_served_while_greedy_users_have_all_places() {
    let fixture = Fixture::new(KeyKind::P256);
    let places = ["--max-connections", "8", "--max-connections-per-user", "4"];
    let server = fixture.server().pin(PIN).args(places).start();
    let key = server.client().open(KEY).unwrap();
    let greedy: Vec<_> = (4711..4717)
        .map(|uid| AsUser::new(&server, uid, uid))
        .collect();
    let newcomer = AsUser::new(&server, 4720, 4720);
    fixture.faults.set([on(C_Sign).hangs()]);
    let mut working: Vec<_> = greedy
        .iter()
        .flat_map(|user| (0..6).map(|_| RawClient::with_preamble(user.socket())))
        .collect();
    for raw in &mut working {
        raw.send(&sign(&key)).unwrap();
    }
    wait_until(|| server.log().contains("a connection is refused: all"));

    let began = Instant::now();
    let mut raw = RawClient::with_preamble(newcomer.socket());
    assert!(raw.ping());
    newcomer.list_tokens();
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    fixture.faults.clear();
    newcomer.open(KEY).unwrap().sign().unwrap();
}

#[test]
fn ping_and_status_are_answered_at_once_though_all_places_of_the_user_are_at_work() {
    let fixture = Fixture::new(KeyKind::P256);
    let places = ["--max-connections", "4", "--max-connections-per-user", "4"];
    let server = fixture.server().pin(PIN).args(places).start();
    // The client that opened it has left, and its place is free.
    let request = sign(&server.client().open(KEY).unwrap());
    fixture.faults.set([on(C_Sign).hangs()]);
    let before = fixture.faults.count(C_Sign);
    // Each asks at once: who has not asked yet makes room for the next.
    let mut working = [(); 4].map(|()| {
        let mut raw = RawClient::with_preamble(server.socket());
        raw.send(&request).unwrap();
        raw
    });
    wait_until(|| fixture.faults.count(C_Sign) >= before + 4);
    // One that waits for a place looks for it this often.
    thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let mut raw = RawClient::with_preamble(server.socket());
    assert!(raw.ping() && raw.ping());
    server.client().status();
    let ping = p11_proto::tedge1::Request::Ping;
    let pong = ask_tedge1(server.socket(), &ping);
    assert_eq!(pong, p11_proto::tedge1::Response::Pong);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // What takes a place waits for one, and is told that there is none.
    match raw.ask(&request) {
        Some(Response::Error(failure)) => assert_eq!(failure.code, ErrorCode::Busy),
        other => panic!("{other:?}"),
    }
    fixture.faults.clear();
    for raw in &mut working {
        assert!(matches!(raw.answer(), Some(Response::Signature(_))));
    }
}

#[test]
fn of_a_thousand_connections_at_once_each_is_answered_or_told_that_there_is_no_place() {
    let (_fixture, server) = Fixture::started();
    let threads = 50;
    let all_connected = Barrier::new(threads);
    let (mut served, mut busy) = (0, 0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    all_connected.wait();
                    let mut clients: Vec<_> = (0..20)
                        .map(|_| RawClient::with_preamble(server.socket()))
                        .collect();
                    let ping = Request::Ping(Ping::default());
                    for raw in &mut clients {
                        let _ = raw.send(&ping);
                    }
                    clients
                        .iter_mut()
                        .map(RawClient::answer)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for answer in clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
        {
            match answer {
                Some(Response::Pong(_)) => served += 1,
                Some(Response::Error(failure)) if failure.code == ErrorCode::Busy => busy += 1,
                other => panic!("neither served nor told: {other:?}"),
            }
        }
    });
    assert_eq!(served + busy, 1000);
    assert!(served > 64, "{served}");
}

/// How long a new connection of another user takes to be served, in the middle, while connections that say this come
/// as fast as they can.
fn delay_beside(server: &Server, other: &AsUser, bytes: &[u8]) -> Duration {
    let is_over = AtomicBool::new(false);
    let mut delays = Vec::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut held = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let mut raw = RawClient::with_preamble(server.socket());
                    let _ = raw.0.write_all(bytes);
                    held.push(raw);
                    if held.len() > 100 {
                        held.clear();
                    }
                }
            });
        }
        let _ended = StopOnDrop(&is_over);
        for _ in 0..31 {
            let began = Instant::now();
            assert!(RawClient::admitted(other.socket()).ping());
            delays.push(began.elapsed());
            thread::sleep(Duration::from_millis(10));
        }
    });
    delays.sort_unstable();
    delays[delays.len() / 2]
}

#[test]
fn half_requests_in_any_number_delay_another_users_connections_no_more_than_whole_ones() {
    let (_fixture, server) = Fixture::started();
    let other = AsUser::new(&server, 4712, 4712);
    assert!(RawClient::admitted(other.socket()).ping());
    let ping = frame::encode(&Request::Ping(Ping::default())).unwrap();
    let whole = delay_beside(&server, &other, &ping);
    let half = delay_beside(&server, &other, &ping[..ping.len() / 2]);
    let most = 3 * whole + Duration::from_millis(100);
    assert!(
        half < most,
        "{half:?} beside half requests, {whole:?} beside whole ones"
    );
}
