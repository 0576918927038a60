//! Users take turns on a token: what one of them asks for in a loop costs another a turn's wait and no more.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use p11_client::{ErrorCode, message::ChangePin};
use p11_fault_module::{
    Function::{self, *},
    on, token,
};
use p11_tests::{
    as_user::AsUser,
    client::{ClientKey, P256, TestClient, refused},
    fixture::{Fixture, KEY, SO_PIN},
    keys::KeyKind,
    server::Server,
    text::assert_contains,
    wait::{StopOnDrop, wait_until},
};

/// How long each slow piece of work takes.
const SLOW: Duration = Duration::from_secs(2);

/// Beside what is waited for, on a machine that others use, too.
const SOON: Duration = Duration::from_secs(1);

// Who waits for a piece of slow work takes longer.
const _: () = assert!(SOON.as_millis() < SLOW.as_millis());

const DEVICE: &str = "pkcs11:token=device";

/// A server, and another user who has signed once with the key.
fn beside_another_user(start: fn(&Fixture) -> Server) -> (Fixture, Server, AsUser, ClientKey) {
    let fixture = Fixture::new(KeyKind::P256);
    let server = start(&fixture);
    let other = AsUser::new(&server, 2000, 2000);
    let key = other.open(KEY).unwrap();
    key.sign().unwrap();
    (fixture, server, other, key)
}

/// What a user asks for again and again, and the function that makes it slow.
type Row = (Function, fn(&TestClient, &Fixture));

const ROWS: [Row; 4] = [
    (C_GenerateKeyPair, |client, _| {
        drop(client.create_key(DEVICE, P256, "new", None));
    }),
    (C_CreateObject, |client, fixture| {
        drop(client.import_certificate(KEY, &fixture.certificate()));
    }),
    (C_FindObjectsFinal, |client, _| {
        drop(client.list_keys(DEVICE));
    }),
    (C_FindObjectsInit, |client, _| {
        drop(client.open("pkcs11:token=device;object=missing"));
    }),
];

#[test]
fn another_users_signatures_wait_for_no_slow_work_and_his_search_for_one_piece() {
    for (function, ask) in ROWS {
        let (fixture, server, other, key) = beside_another_user(Fixture::start);
        fixture.add_key(KeyKind::P256, "second", 2);
        let millis = match function {
            // A search makes three of these.
            C_FindObjectsInit | C_FindObjectsFinal => SLOW.as_millis() / 3,
            _ => SLOW.as_millis(),
        };
        let slow = on(function).delays(millis.try_into().unwrap());
        fixture.faults.set([slow]);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let _over = StopOnDrop(&over);
            for _ in 0..3 {
                scope.spawn(|| {
                    let client = server.client();
                    while !over.load(Relaxed) {
                        ask(&client, &fixture);
                        thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            // All three are at work or wait.
            thread::sleep(SLOW / 2);
            let mut slowest = Duration::ZERO;
            for _ in 0..20 {
                let start = Instant::now();
                key.sign().unwrap();
                slowest = slowest.max(start.elapsed());
                thread::sleep(Duration::from_millis(50));
            }
            assert!(slowest < SOON, "{function:?}: a signature took {slowest:?}");
            // A search reads the contents twice where it has to log in, and it takes a turn to use them: each behind one
            // piece of the others' work at most.
            let start = Instant::now();
            other.open("pkcs11:token=device;object=second").unwrap();
            let took = start.elapsed();
            assert!(
                took < SLOW * 4 + SOON,
                "{function:?}: a search took {took:?}"
            );
        });
    }
}

#[test]
fn a_key_that_takes_longer_to_make_than_others_may_wait_holds_up_no_signature() {
    let (fixture, server, other, key) = beside_another_user(Fixture::start_quick);
    fixture.add_key(KeyKind::P256, "second", 2);
    // A request waits for 2 s here, and a new key may take 6 s.
    let takes = Duration::from_secs(4);
    fixture.faults.set([on(C_GenerateKeyPair)
        .next(1)
        .delays(takes.as_millis() as u32)]);
    let client = server.client();
    thread::scope(|scope| {
        let began = Instant::now();
        let creation = scope.spawn(|| client.create_key(DEVICE, P256, "new", None).map(drop));
        wait_until(|| fixture.faults.counts().injected() > 0);
        let search = scope.spawn(|| other.open("pkcs11:token=device;object=second").map(drop));
        let mut slowest = Duration::ZERO;
        while !creation.is_finished() {
            let start = Instant::now();
            key.sign().unwrap();
            slowest = slowest.max(start.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
        assert!(slowest < SOON, "a signature took {slowest:?}");
        creation.join().unwrap().unwrap();
        assert!(began.elapsed() >= takes, "{:?}", began.elapsed());
        refused(search.join().unwrap(), ErrorCode::Timeout);
    });
    other.open("pkcs11:token=device;object=second").unwrap();
}

#[test]
fn a_reset_of_the_pin_holds_up_signatures_for_its_own_time_only() {
    let (fixture, server, _other, key) = beside_another_user(Fixture::start);
    let delay = SLOW.as_millis().try_into().unwrap();
    fixture.faults.set([on(C_InitPIN).next(1).delays(delay)]);
    let client = server.client();
    thread::scope(|scope| {
        scope.spawn(|| {
            let reset = ChangePin::new(p11_tests::fixture::PIN);
            let reset = reset.reset(true).so_pin(Some(SO_PIN.into()));
            client.change_pin(reset).unwrap();
        });
        let begun = Instant::now();
        while begun.elapsed() < SLOW + SOON {
            let start = Instant::now();
            key.sign().unwrap();
            assert!(start.elapsed() < SLOW + SOON, "{:?}", start.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
    });
}

/// How many resets may come before a signature, which takes a turn to find its key and one to sign: each behind the
/// reset that runs.
const MOST_RESETS: u64 = 4;

#[test]
fn resets_of_the_pin_one_after_the_other_starve_no_signature() {
    // With two sessions one signature at a time can be made, and others sign, too.
    for (sessions, signers) in [(9, 0), (2, 2)] {
        let fixture = Fixture::new(KeyKind::P256);
        let limited = || token("device").session_limit(sessions);
        fixture.faults.set([limited()]);
        let server = fixture.start();
        let other = AsUser::new(&server, 2000, 2000);
        let key = other.open(KEY).unwrap();
        key.sign().unwrap();
        fixture
            .faults
            .set([limited(), on(C_InitPIN).delays(50), on(C_Sign).delays(5)]);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        let reset = ChangePin::new(p11_tests::fixture::PIN);
                        let reset = reset.reset(true).so_pin(Some(SO_PIN.into()));
                        server.client().change_pin(reset).unwrap();
                    }
                });
            }
            for _ in 0..signers {
                scope.spawn(|| {
                    let key = server.client().open(KEY).unwrap();
                    while !stop.load(Relaxed) {
                        key.sign().unwrap();
                    }
                });
            }
            let resets = || fixture.faults.count(C_InitPIN);
            for _ in 0..50 {
                // Another reset comes between nearly every two of them, and each has to find its key again.
                thread::sleep(Duration::from_millis(20));
                let before = resets();
                key.sign().unwrap();
                let meanwhile = resets() - before;
                assert!(
                    meanwhile <= MOST_RESETS,
                    "{meanwhile} resets came before it"
                );
            }
        });
    }
}

#[test]
fn slow_requests_of_one_user_that_wait_are_few_and_the_next_is_told_why() {
    let (fixture, server, other, key) = beside_another_user(Fixture::start);
    fixture
        .faults
        .set([on(C_GenerateKeyPair).next(1).delays(4000)]);
    let client = server.client();
    let create = |_| {
        let client = client.clone();
        thread::spawn(move || client.create_key(DEVICE, P256, "new", None).map(drop))
    };
    let created: Vec<_> = (0..1 + 8 + 4).map(create).collect();
    thread::sleep(Duration::from_secs(1));
    let failure = refused(client.list_keys(DEVICE), ErrorCode::Busy);
    assert_contains(
        &failure.message,
        ["8 slow requests", "token=device", "try again"],
    );
    // Nobody else is told so.
    key.sign().unwrap();
    let listed = other.list_keys(DEVICE).unwrap();
    assert!(!listed.is_empty());
    let outcomes = created.into_iter().map(|thread| thread.join().unwrap());
    let refusals: Vec<_> = outcomes.filter_map(Result::err).collect();
    assert_eq!(refusals.len(), 4, "{refusals:?}");
    for failure in refusals {
        assert_eq!(failure.code, ErrorCode::Busy, "{failure}");
    }
}
