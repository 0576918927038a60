//! fork(2): parent and child sign through one client, each what it has asked for.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::process;

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use p11_client::Client;
use p11_client::message::{Response, Sign, Signature};
use p11_proto::Request;

use crate::fake_server::TempSocket;
use crate::requests::sign;

const SIGNATURES: usize = 300;

#[test]
fn parent_and_child_get_the_signatures_of_their_own_messages() {
    let socket = TempSocket::new();
    // The "signature" of a message is the message.
    let server = socket.serve(|request| match request {
        Request::Sign(sign) => Response::Signature(Signature::new(sign.message)),
        other => panic!("{other:?}"),
    });
    let client = Client::new(socket.config().protocol(p11_client::Protocol::V1));
    assert_eq!(foreign(&client, "before"), 0);
    let (mut told, tell) = pipe().unwrap();
    // SAFETY: the child does nothing but sign and tell; what glibc's malloc needs is made good by its fork().
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => child(&client, told, tell),
        ForkResult::Parent { child } => child,
    };
    drop(tell);
    let in_parent = foreign(&client, "parent");
    let mut in_child = Vec::new();
    told.read_to_end(&mut in_child).unwrap();
    waitpid(child, None).unwrap();
    assert_eq!(
        (in_parent, &in_child[..]),
        (0, &[0][..]),
        "foreign signatures"
    );
    // The parent goes on with its connection, and the child has made one.
    assert_eq!(server.connections(), 2);
}

fn child(client: &Client, told: PipeReader, mut tell: PipeWriter) -> ! {
    drop(told);
    let foreign = u8::try_from(foreign(client, "child")).unwrap_or(u8::MAX);
    let _ = tell.write_all(&[foreign]);
    // Without the destructors of the parent's things, such as its socket.
    nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL).unwrap();
    process::abort()
}

/// How many signatures are not those of their messages.
fn foreign(client: &Client, who: &str) -> usize {
    let is_foreign = |number: &usize| {
        let message = format!("{who} {number}").into_bytes();
        let sign = sign();
        let request = Sign::new("pkcs11:", sign.scheme, message.clone(), sign.identity);
        client.sign(request).ok() != Some(message)
    };
    (0..SIGNATURES).filter(is_foreign).count()
}
