//! A defect in the service ends the connection that met it, and nothing else.

use p11_proto::Response;
use p11_server::net::Limits;

use crate::checks::fake::PANIC;
use crate::stage::{Stage, eventually, sign};

#[test]
fn a_panic_ends_its_connection_and_frees_its_place() {
    let stage = Stage::new(Limits::default());
    let mut other = stage.served();
    let mut unlucky = stage.served();
    unlucky.send(&sign(PANIC));
    assert_eq!(unlucky.answer(), None);
    eventually(|| stage.server.connections() == 1);

    other.send(&sign(b"message"));
    assert!(matches!(other.answer(), Some(Response::Signature(_))));
    stage.served();
}

#[test]
fn the_places_of_panics_can_be_taken_again() {
    let stage = Stage::new(Limits {
        all: 2,
        per_user: 2,
        ..Limits::default()
    });
    for _ in 0..10 {
        let mut unlucky = stage.served();
        unlucky.send(&sign(PANIC));
        assert_eq!(unlucky.answer(), None);
    }
    eventually(|| stage.server.connections() == 0);
}
