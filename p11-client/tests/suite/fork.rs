//! fork(2): parent and child sign through one client, each what it has asked for.

use std::fs;
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::AsFd;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SIGKILL, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use p11_client::message::{Response, Sign, Signature};
use p11_client::{Client, LazyKey, RenewingResolver};
use p11_proto::Request;

use crate::fake_server::{Reaction, TempSocket};
use crate::renewal::pem;
use crate::requests::sign;
use crate::test_key::TestKey;

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
    let child = Child::new(|| foreign(&client, "child"));
    assert_eq!(foreign(&client, "parent"), 0);
    assert_eq!(child.told(), Some(0), "foreign signatures");
    // The parent goes on with its connection, and the child has made one.
    assert_eq!(server.connections(), 2);
}

/// A thread of the parent, which no child has, holds what the child needs.
#[test]
fn a_child_waits_for_no_thread_of_its_parent() {
    let key = TestKey::p256();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.pem");
    fs::write(&file, pem(&key.certificate)).unwrap();
    let (socket, child_is_there) = (TempSocket::new(), Arc::new(AtomicBool::new(false)));
    let server = socket.serve({
        let child_is_there = child_is_there.clone();
        move |request| match child_is_there.load(Ordering::SeqCst) {
            true => Reaction::from(key.answer(request)),
            false => Reaction::Silence,
        }
    });
    let client = Client::new(socket.config().protocol(p11_client::Protocol::V1));
    let client = client.within(Duration::from_secs(5));
    let lazy = LazyKey::new(&client, "pkcs11:", None, None).unwrap();
    let renewing = RenewingResolver::new(&client, "pkcs11:", None, file);
    thread::scope(|scope| {
        scope.spawn(|| lazy.open());
        // The child comes within the two seconds that this lasts.
        scope.spawn(|| renewing.check());
        while server.connections() < 2 {
            thread::sleep(Duration::from_millis(10));
        }
        let child = Child::new(|| {
            thread::sleep(Duration::from_millis(100));
            let opened = [lazy.open().is_ok(), renewing.check().is_ok()];
            opened.into_iter().filter(|opened| *opened).count()
        });
        child_is_there.store(true, Ordering::SeqCst);
        assert_eq!(child.told(), Some(2));
    });
}

/// A forked process that does its work and tells a number.
struct Child {
    pid: Pid,
    told: PipeReader,
}

impl Child {
    fn new(work: impl FnOnce() -> usize) -> Self {
        let (told, mut tell) = pipe().unwrap();
        // SAFETY: the child does nothing but work and tell; what glibc's malloc needs is made good by its fork().
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let _ = tell.write_all(&[u8::try_from(work()).unwrap_or(u8::MAX)]);
                // Without the destructors of the parent's things, such as its socket.
                kill(nix::unistd::getpid(), SIGKILL).unwrap();
                process::abort()
            }
            ForkResult::Parent { child } => Child { pid: child, told },
        }
    }

    /// `None` for a child that hangs.
    fn told(mut self) -> Option<u8> {
        let mut poll = [PollFd::new(self.told.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut poll, PollTimeout::from(30_000_u16)).unwrap();
        let is_told = poll[0].any().unwrap();
        kill(self.pid, SIGKILL).unwrap();
        waitpid(self.pid, None).unwrap();
        let mut byte = [0];
        is_told.then(|| self.told.read_exact(&mut byte).unwrap())?;
        Some(byte[0])
    }
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
