//! The limits on connections, and users who compete for them.

use std::time::{Duration, Instant};

use p11_fault_module::{Function::C_Sign, on};
use p11_proto::{Request, Response};
use p11_tests::{
    as_user::AsUser,
    client::ClientKey,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    raw_client::RawClient,
    server::Server,
    wait::wait_until,
};

/// A server with few connections, and its key.
fn with_limits(fixture: &Fixture, all: usize, per_user: usize) -> (Server, ClientKey) {
    let server = fixture
        .server()
        .pin(PIN)
        .args(["--max-connections", &all.to_string()])
        .args(["--max-connections-per-user", &per_user.to_string()])
        .start();
    let key = server.client().open(KEY).unwrap();
    // The client that opened it has left.
    (server, key)
}

fn two_users(server: &Server) -> [AsUser; 2] {
    [
        AsUser::new(server, 4711, 4711),
        AsUser::new(server, 4712, 4712),
    ]
}

/// A connection with a signature under way, on which the module takes its time.
fn at_work(fixture: &Fixture, socket: &std::path::Path, key: &ClientKey) -> RawClient {
    let before = fixture.faults.count(C_Sign);
    let mut raw = RawClient::with_preamble(socket);
    let request = key.request(key.told().schemes[0], b"a message");
    raw.send(&Request::Sign(request)).unwrap();
    wait_until(|| fixture.faults.count(C_Sign) > before);
    raw
}

fn signed(raw: &mut RawClient) {
    let answer = raw.answer();
    assert!(matches!(answer, Some(Response::Signature(_))), "{answer:?}");
}

#[test]
fn the_user_with_the_most_connections_gives_up_the_oldest_one() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, key) = with_limits(&fixture, 5, 4);
    drop(key);
    let [many, one] = two_users(&server);
    let mut of_one = RawClient::admitted(one.socket());
    let mut of_many = [(); 4].map(|()| RawClient::admitted(many.socket()));
    RawClient::admitted(server.socket());
    let closed = of_many.each_mut().map(RawClient::is_closed);
    assert_eq!(closed, [true, false, false, false]);
    assert!(of_one.ping());
}

#[test]
fn where_all_of_these_are_busy_nobody_gives_up_the_only_one() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, key) = with_limits(&fixture, 3, 2);
    let [many, one] = two_users(&server);
    fixture.faults.set([on(C_Sign).hangs()]);
    let mut working = [(); 2].map(|()| at_work(&fixture, many.socket(), &key));
    let mut silent = RawClient::admitted(one.socket());
    RawClient::admitted(server.socket());
    // There is a reserve for who has none.
    assert!(silent.ping());
    fixture.faults.clear();
    working.iter_mut().for_each(signed);
}

#[test]
fn a_user_whose_connections_are_all_busy_keeps_nobody_else_out() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, key) = with_limits(&fixture, 8, 2);
    let [greedy, other] = two_users(&server);
    fixture.faults.set([on(C_Sign).hangs()]);
    let mut working = [(); 2].map(|()| at_work(&fixture, greedy.socket(), &key));
    // More than may wait, and one who was refused at once shows that they do.
    let mut more = [(); 20].map(|()| RawClient::with_preamble(greedy.socket()));
    wait_until(|| server.log().contains("a connection is refused: all"));
    let began = Instant::now();
    assert!(RawClient::admitted(other.socket()).ping());
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    fixture.faults.clear();
    working.iter_mut().for_each(signed);
    assert!(
        more.iter_mut().any(RawClient::ping),
        "none of those who waited is served"
    );
}

#[test]
fn a_user_who_fills_his_part_of_the_queue_keeps_nobody_else_out() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, key) = with_limits(&fixture, 3, 2);
    let [greedy, other] = two_users(&server);
    fixture.faults.set([on(C_Sign).delays(1000)]);
    let mut working = vec![at_work(&fixture, other.socket(), &key)];
    working.extend([(); 2].map(|()| at_work(&fixture, greedy.socket(), &key)));
    let _waiting = [(); 20].map(|()| RawClient::with_preamble(greedy.socket()));
    wait_until(|| server.log().contains("a connection is refused: all"));
    // All places are at work; the next one that is free is for the user with fewer.
    assert!(RawClient::admitted(other.socket()).ping());
    working.iter_mut().for_each(signed);
}
