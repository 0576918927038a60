//! An enemy with several users and connections guesses PINs in every request that takes one.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use p11_client::{ErrorCode, Failure, message::ChangePin};
use p11_fault_module::{Pin, token};
use p11_tests::{
    client::{P256, TestClient},
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    wait::StopOnDrop,
};

use p11_tests::as_user::AsUser;

const DEVICE: &str = "pkcs11:token=device";

/// One guess in one kind of request, what became of it.
fn guess(client: &TestClient, kind: usize, pin: &str) -> Result<(), Failure> {
    let with_pin = client.with_pin(pin);
    let some = || Some(pin.into());
    match kind % 8 {
        0 => with_pin.open(KEY).map(drop),
        1 => with_pin.list_keys(DEVICE).map(drop),
        2 => with_pin.get_certificates(DEVICE).map(drop),
        3 => with_pin.create_key(DEVICE, P256, "stolen", None).map(drop),
        4 => with_pin.delete_key(KEY).map(drop),
        5 => client
            .change_pin(
                ChangePin::new("another-pin")
                    .old_pin(some())
                    .uri(Some(DEVICE.into())),
            )
            .map(drop),
        6 => client
            .change_pin(
                ChangePin::new("another-pin")
                    .so_pin(some())
                    .reset(true)
                    .uri(Some(DEVICE.into())),
            )
            .map(drop),
        _ => with_pin.open("pkcs11:token=device;object=none").map(drop),
    }
}

/// While logins are lost, and the operator says SIGHUP.
#[test]
fn guesses_in_all_requests_by_several_users_lock_nothing_and_change_nothing() {
    for server_pin in [Some(PIN), None] {
        let fixture = Fixture::new(KeyKind::P256);
        let tries = || {
            [
                token("device").pin_tries(Pin::User, 3),
                token("device").pin_tries(Pin::So, 3),
            ]
        };
        fixture.faults.set(tries());
        let builder = fixture.server();
        let server = match server_pin {
            Some(pin) => builder.pin(pin).start(),
            None => builder.start(),
        };
        server.secrets().add("another-pin");
        let users = [4711, 4712, 4713].map(|uid| AsUser::new(&server, uid, uid));
        let (over, asked, looked_at) = (
            AtomicBool::new(false),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        thread::scope(|scope| {
            let _stop = StopOnDrop(&over);
            for number in 0..6 {
                let user = &users[number % users.len()];
                let (over, asked, looked_at) = (&over, &asked, &looked_at);
                scope.spawn(move || {
                    while !over.load(Relaxed) {
                        let count = asked.fetch_add(1, Relaxed);
                        let told = guess(user, count + number, &format!("guess-{count}"));
                        let failure = told.expect_err("a wrong PIN is good for nothing");
                        if failure.code == ErrorCode::PinIncorrect {
                            looked_at.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            let began = Instant::now();
            for round in 1.. {
                if began.elapsed() > Duration::from_secs(6) {
                    break;
                }
                if server_pin.is_some() {
                    server.client().open(KEY).unwrap().sign().unwrap();
                }
                thread::sleep(Duration::from_millis(300));
                let lost = token("device").logged_out();
                fixture.faults.set(tries().into_iter().chain([lost]));
                if round % 5 == 0 {
                    server.sighup();
                }
            }
        });
        let (asked, looked_at) = (asked.into_inner(), looked_at.into_inner());
        // Three at once of each of three users, then 1 s, 2 s, 4 s; where nothing is open, what was refused.
        assert!(looked_at <= 3 * 6 + 4, "{looked_at} of {asked}");
        assert!(asked > 50, "{asked}");
        fixture.faults.set(tries());
        assert!(fixture.tries_pin(Pin::User, PIN), "the user's PIN is open");
        assert!(
            fixture.tries_pin(Pin::So, SO_PIN),
            "the officer's PIN is open"
        );
    }
}
