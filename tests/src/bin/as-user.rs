//! `as-user UID GID LISTEN CONNECT`: a proxy from the socket LISTEN to the socket CONNECT that runs as this user. A
//! test runs it as root to be several users at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "part of tests, and a panic says what went wrong"
)]

use std::{
    env, io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::Arc,
    thread,
};

use p11_tests::process::become_user;

fn main() {
    let arguments: Vec<_> = env::args().collect();
    let [_, uid, gid, listen, connect] = &arguments[..] else {
        panic!("usage: as-user UID GID LISTEN CONNECT");
    };
    let listener = UnixListener::bind(listen).expect("a socket to listen on");
    become_user(
        uid.parse().expect("a number"),
        gid.parse().expect("a number"),
    );
    println!("ready");
    for client in listener.incoming() {
        let client = client.expect("a connection");
        match UnixStream::connect(connect) {
            Ok(server) => relay(client, server),
            Err(error) => println!("cannot connect: {error}"),
        }
    }
}

/// Passes bytes on in both directions, and the end of each. Hundreds of these are open at once, so none
/// takes more than its two descriptors.
fn relay(client: UnixStream, server: UnixStream) {
    let (client, server) = (Arc::new(client), Arc::new(server));
    for (from, to) in [(client.clone(), server.clone()), (server, client)] {
        thread::spawn(move || {
            // An error is an end as well.
            let _ = io::copy(&mut &*from, &mut &*to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
