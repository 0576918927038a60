//! One request per connection: its end, its deadline, and what may follow it.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use p11_tests::{
    fixture::{Fixture, KEY},
    text::assert_contains,
    wait::TIMEOUT,
};

use super::{Tedge1Client, choose, sign};

#[test]
fn pong_advertises_protocol_1() {
    let (_fixture, server) = Fixture::started();
    assert_eq!(Tedge1Client::of(&server).ask(&[0, 8]), *b"\0\x09P11\x01");
}

#[test]
fn what_follows_a_request_is_for_newer_servers() {
    let (_fixture, server) = Fixture::started();
    let old = Tedge1Client::of(&server);
    assert_eq!(old.ask(&[0, 8, 1, 2, 3]), old.ask(&[0, 8]));
    let request = choose(&[0x0403], KEY);
    let longer = [&request[..], b"\x01new field"].concat();
    assert_eq!(old.ask(&longer), old.ask(&request));
}

#[test]
fn a_request_may_come_in_pieces() {
    let (_fixture, server) = Fixture::started();
    let request = choose(&[0x0403], KEY);
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    for byte in &request {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, [0, 3, 1, 0x83, 0x08, 3]);
}

#[test]
fn a_client_that_never_ends_its_request_runs_into_the_deadline_and_harms_nobody() {
    let (_fixture, server) = Fixture::started();
    let key = server.client().open(KEY).unwrap();
    let began = Instant::now();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = UnixStream::connect(server.socket()).unwrap();
            stream.write_all(&sign(b"m", KEY)).unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            stream
        })
        .collect();
    key.sign().unwrap();
    Tedge1Client::of(&server).ask(&[0, 8]);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "others had to wait"
    );
    for mut stream in clients {
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        let told = String::from_utf8_lossy(&reply);
        assert_contains(&told, ["Failed to parse the received frame"]);
    }
    assert!(
        began.elapsed() > Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    key.sign().unwrap();
}
