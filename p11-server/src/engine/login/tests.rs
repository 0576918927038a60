//! The rules of PINs one by one. The table itself is read by eye; sequences are played in `tests/model-module`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::time::{Duration, Instant};

use super::attempt::{Attempt, Subject};
use super::digests::Salted;
use super::pin_guard::PinGuard;
use super::states::{Fate, Owner, Role, State, Tries};

/// How long a PIN of which nothing was told waits.
const PAUSE: Duration = Duration::from_secs(120);

const RIGHT: u8 = 1;
const ALICE: u32 = 1001;
const BOB: u32 = 1002;

fn pin(number: u8) -> Salted {
    [number; 32]
}

fn subject(token: u8) -> Subject {
    Subject {
        token: pin(token),
        role: Role::User,
        counter: pin(token),
        in_tpm: false,
        server: None,
        is_shared: false,
    }
}

fn attempt(owner: Owner, number: u8, now: Instant) -> Attempt {
    Attempt {
        owner,
        pin: Some(pin(number)),
        open: None,
        tries: Tries::default(),
        shares_tpm: false,
        is_retry: false,
        now,
    }
}

/// What becomes of a PIN of a client at a token that is logged in with the right one.
fn compare(guard: &mut PinGuard, user: u32, number: u8, now: Instant) -> State {
    let open = Some(pin(RIGHT));
    let attempt = attempt(Owner::Client(user), number, now);
    guard.decide(&subject(0), &Attempt { open, ..attempt }).0
}

#[test]
fn after_three_misses_a_user_waits_twice_as_long_each_time_and_others_do_not() {
    let mut guard = PinGuard::new(pin(0), PAUSE);
    let mut now = Instant::now();
    assert_eq!(compare(&mut guard, BOB, RIGHT, now), State::Open);
    assert_eq!(compare(&mut guard, ALICE, RIGHT, now), State::Open);
    let mut wait = 1;
    for number in 10..30 {
        let differs = State::OpenOther;
        assert_eq!(compare(&mut guard, ALICE, number, now), differs);
        // The same one again is no further miss.
        if number < 12 {
            assert_eq!(compare(&mut guard, ALICE, number, now), differs);
            continue;
        }
        let waits = State::Waiting(Duration::from_secs(wait));
        assert_eq!(compare(&mut guard, ALICE, number + 1, now), waits);
        assert_eq!(compare(&mut guard, ALICE, RIGHT, now), waits);
        assert_eq!(compare(&mut guard, BOB, RIGHT, now), State::Open);
        now += Duration::from_secs(wait);
        wait = (wait * 2).min(15 * 60);
    }
    assert_eq!(compare(&mut guard, ALICE, RIGHT, now), State::Open);
    assert_eq!(compare(&mut guard, ALICE, RIGHT, now), State::Open);
}

#[test]
fn users_that_never_had_the_pin_have_ten_guesses_an_hour_together() {
    let mut guard = PinGuard::new(pin(0), PAUSE);
    let began = Instant::now();
    assert_eq!(compare(&mut guard, BOB, RIGHT, began), State::Open);
    for user in 0..10 {
        let told = compare(&mut guard, user, 10 + user as u8, began);
        assert_eq!(told, State::OpenOther);
    }
    let hour = Duration::from_secs(60 * 60);
    let waits = State::Waiting(hour);
    assert_eq!(compare(&mut guard, 99, RIGHT, began), waits);
    assert_eq!(compare(&mut guard, BOB, RIGHT, began), State::Open);
    assert_eq!(compare(&mut guard, 99, RIGHT, began + hour), State::Open);
}

#[test]
fn the_operator_frees_an_unchanged_pin_once_and_each_other_one_once() {
    let mut guard = PinGuard::new(pin(0), PAUSE);
    let now = Instant::now();
    let ask = |guard: &mut PinGuard, number| {
        let (state, fate) = guard.decide(&subject(0), &attempt(Owner::Server, number, now));
        if fate == Fate::Send {
            guard.refused(&subject(0), Owner::Server, Some(pin(number)), now);
        }
        state
    };
    assert_eq!(ask(&mut guard, 10), State::New);
    guard.free(false);
    assert_eq!(ask(&mut guard, 10), State::New);
    for _ in 0..3 {
        guard.free(false);
        assert_eq!(ask(&mut guard, 10), State::Refused);
    }
    for number in 11..15 {
        guard.free(true);
        assert_eq!(ask(&mut guard, number), State::New);
        assert_eq!(ask(&mut guard, number), State::Refused);
    }
    guard.free(true);
    assert_eq!(
        guard
            .decide(&subject(0), &attempt(Owner::Server, RIGHT, now))
            .0,
        State::New
    );
    guard.accepted(&subject(0), Owner::Server, Some(pin(RIGHT)));
}

#[test]
fn an_unclear_answer_is_followed_by_one_more_try_after_a_reload_and_a_pause() {
    let mut guard = PinGuard::new(pin(0), PAUSE);
    let mut now = Instant::now();
    let ask = |guard: &mut PinGuard, now| {
        guard
            .decide(&subject(0), &attempt(Owner::Server, RIGHT, now))
            .0
    };
    let (second, it) = (Duration::from_secs(1), Some(pin(RIGHT)));
    guard.unclear(&subject(0), Owner::Server, it, now);
    let not_reloaded = State::Unclear(Duration::ZERO);
    assert_eq!(ask(&mut guard, now), State::Unclear(PAUSE));
    assert_eq!(ask(&mut guard, now + PAUSE), not_reloaded);
    guard.reloaded();
    now += PAUSE;
    assert_eq!(ask(&mut guard, now - second), State::Unclear(second));
    assert_eq!(ask(&mut guard, now), State::New);
    guard.unclear(&subject(0), Owner::Server, it, now);
    guard.reloaded();
    let twice = State::UnclearTwice;
    assert_eq!(ask(&mut guard, now + Duration::from_secs(3600)), twice);
    // What was accepted before is tried again and again, with pauses.
    guard.accepted(&subject(0), Owner::Server, it);
    for pause in [30, 60, 120, 240, 480, 900, 900] {
        guard.unclear(&subject(0), Owner::Server, it, now);
        now += Duration::from_secs(pause - 1);
        assert_eq!(ask(&mut guard, now), State::Unclear(second), "{pause}");
        now += Duration::from_secs(1);
        assert_eq!(ask(&mut guard, now), State::Accepted);
    }
}

#[test]
fn the_default_pin_is_sent_while_no_try_was_used() {
    let mut guard = PinGuard::new(pin(0), PAUSE);
    let attempt = attempt(Owner::Default, 10, Instant::now());
    let tries = Tries {
        some_used: true,
        ..Tries::default()
    };
    let used = Attempt { tries, ..attempt };
    assert_eq!(
        guard.decide(&subject(0), &attempt),
        (State::New, Fate::Send)
    );
    assert_eq!(
        guard.decide(&subject(0), &used),
        (State::TryUsed, Fate::Refuse)
    );
}

#[test]
fn after_a_reload_a_pin_of_a_client_is_sent_only_where_it_was_accepted() {
    let mut guard = PinGuard::new(pin(0), PAUSE);
    let now = Instant::now();
    let retry = |owner| Attempt {
        is_retry: true,
        ..attempt(owner, RIGHT, now)
    };
    let (server, client) = (retry(Owner::Server), retry(Owner::Client(ALICE)));
    assert_eq!(
        guard.decide(&subject(0), &client),
        (State::Reloaded, Fate::Refuse)
    );
    assert_eq!(
        guard.decide(&subject(0), &server),
        (State::Reloaded, Fate::Send)
    );
    guard.accepted(&subject(0), Owner::Server, Some(pin(RIGHT)));
    assert_eq!(
        guard.decide(&subject(0), &client),
        (State::Accepted, Fate::Send)
    );
}

#[test]
fn a_pin_that_is_accepted_gives_back_the_tries_of_a_card_and_none_of_a_tpm() {
    let now = Instant::now();
    for (in_tpm, state) in [(false, State::New), (true, State::Spent)] {
        let mut guard = PinGuard::new(pin(0), PAUSE);
        let device = Subject {
            in_tpm,
            ..subject(0)
        };
        for number in [10, 11] {
            guard.refused(&device, Owner::Client(ALICE), Some(pin(number)), now);
            guard.accepted(&device, Owner::Client(ALICE), Some(pin(RIGHT)));
        }
        let other = attempt(Owner::Client(BOB), 12, now);
        assert_eq!(guard.decide(&device, &other).0, state);
        // A reset of the token gives back none of the TPM either.
        guard.invalidate(&device);
        assert_eq!(guard.decide(&device, &other).0, state);
        guard.free(false);
        assert_eq!(guard.decide(&device, &other).0, State::New);
    }
}

/// Else who tries PINs would find the server's, or another user's, where no other one is sent.
#[test]
fn where_no_pin_is_sent_nobody_learns_what_became_of_anothers() {
    let now = Instant::now();
    let alices = Some(pin(11));
    for is_unclear in [false, true] {
        let mut guard = PinGuard::new(pin(0), PAUSE);
        guard.refused(&subject(0), Owner::Server, Some(pin(10)), now);
        match is_unclear {
            true => guard.unclear(&subject(0), Owner::Client(ALICE), alices, now),
            false => guard.refused(&subject(0), Owner::Client(ALICE), alices, now),
        }
        let mut ask = |user, number| {
            let attempt = attempt(Owner::Client(user), number, now);
            guard.decide(&subject(0), &attempt).0
        };
        let of_its_own = match is_unclear {
            true => State::Unclear(PAUSE),
            false => State::Refused,
        };
        assert_eq!(ask(ALICE, 11), of_its_own);
        for number in [10, 10, 11, 11, 12] {
            assert_eq!(ask(BOB, number), State::Spent, "{number}");
        }
    }
}
