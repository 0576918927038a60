//! Clients with default settings sign while the server is killed and started again, over and over.

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use p11_client::SigningKey;
use rustls::sign::SigningKey as _;

use crate::fake_server::{FakeServer, Reaction};
use crate::fake_token::TestKey;
use crate::place::Place;

const CLIENTS: usize = 4;
const RESTARTS: usize = 20;

/// For how long the server is there, and then for how long it is not.
const HALF_A_ROUND: Duration = Duration::from_millis(50);

#[test]
fn no_signature_fails_while_a_server_with_a_socket_of_its_own_is_restarted() {
    let place = Place::new();
    let key = TestKey::p256();
    sign_during_restarts(&place, &key, || {
        // The socket of a killed server stays, and refuses until the next one replaces it.
        let _ = std::fs::remove_file(&place.socket);
        serve(UnixListener::bind(&place.socket).unwrap(), &key)
    });
}

#[test]
fn no_signature_fails_while_a_server_with_an_inherited_socket_is_restarted() {
    let place = Place::new();
    let key = TestKey::p256();
    // Who connects while there is no server waits in the queue of this one.
    let listener = UnixListener::bind(&place.socket).unwrap();
    sign_during_restarts(&place, &key, || serve(listener.try_clone().unwrap(), &key));
}

fn sign_during_restarts(place: &Place, key: &TestKey, start: impl Fn() -> FakeServer) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| sign_until(&over, place, key)))
            .collect();
        for _ in 0..RESTARTS {
            let server = start();
            thread::sleep(HALF_A_ROUND);
            drop(server);
            thread::sleep(HALF_A_ROUND);
        }
        let _last = start();
        over.store(true, Ordering::SeqCst);
        for client in clients {
            let signatures = client.join().unwrap();
            assert!(signatures > RESTARTS, "{signatures}");
        }
    });
}

/// How many signatures there were, of which none failed.
fn sign_until(over: &AtomicBool, place: &Place, expected: &TestKey) -> usize {
    let chain = Some(&expected.certificate);
    let key = SigningKey::open(&place.client(), "pkcs11:", None, chain).unwrap();
    let mut signatures = 0;
    while !over.load(Ordering::SeqCst) {
        let signer = key.choose_scheme(&expected.schemes).unwrap();
        signer.sign(b"message").unwrap();
        signatures += 1;
    }
    signatures
}

fn serve(listener: UnixListener, key: &TestKey) -> FakeServer {
    let key = key.clone();
    FakeServer::inheriting(listener, move |request| {
        Reaction::Answer(key.answer(request))
    })
}
