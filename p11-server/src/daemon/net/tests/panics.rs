//! A defect in the service ends the connection that met it, and nothing else.

use crate::daemon::net::limits::ConnectionLimits;
use p11_proto::Response;

use super::super::checks::fake::PANIC;
use super::fixture::{Fixture, sign, wait_until};

#[test]
fn a_panic_ends_its_connection_and_frees_its_place() {
    let fixture = Fixture::new(ConnectionLimits::default());
    let mut other = fixture.served();
    let mut unlucky = fixture.served();
    unlucky.send(&sign(PANIC));
    assert_eq!(unlucky.answer(), None);
    wait_until(|| fixture.server.connections() == 1);

    other.send(&sign(b"message"));
    assert!(matches!(other.answer(), Some(Response::Signature(_))));
    fixture.served();
}

#[test]
fn the_places_of_panics_can_be_taken_again() {
    let fixture = Fixture::new(ConnectionLimits {
        all: 2,
        per_user: 2,
        ..ConnectionLimits::default()
    });
    for _ in 0..10 {
        let mut unlucky = fixture.served();
        unlucky.send(&sign(PANIC));
        assert_eq!(unlucky.answer(), None);
    }
    wait_until(|| fixture.server.connections() == 0);
}
