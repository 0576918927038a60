//! An enemy with a token of its own, or with none, who would have the server tell PINs that it does not know.

use std::{
    thread,
    time::{Duration, Instant},
};

use p11_client::{
    ErrorCode, Failure, Pin,
    message::{ChangePin, InitToken},
};
use p11_fault_module::{
    Function::{C_InitToken, C_Login},
    token,
};
use p11_tests::{
    client::{P256, TestClient, refused},
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    server::Server,
    text::assert_contains,
};

use p11_tests::as_user::AsUser;

/// The enemy's own PIN, and others that it sets.
const OWN: &str = "own-pin-1";
const GUESS: &str = "own-pin-2";
const TWO: &str = "pkcs11:token=two";
const KEY_OF_TWO: &str = "pkcs11:token=two;object=key";

const ENEMY: u32 = 4711;
const OTHER: u32 = 4712;

/// A token with the server's PIN, and the enemy's. Neither is singled out by the server's URI.
fn two_tokens() -> (Fixture, Server) {
    let fixture = Fixture::new(KeyKind::P256);
    let two = fixture.hsm.init_token("two", OWN, SO_PIN);
    fixture.hsm.generate(&two, &fixture.key.spec);
    let server = fixture.start();
    server.secrets().add(GUESS);
    server.client().open(KEY).unwrap();
    (fixture, server)
}

fn some(pin: &str) -> Option<Pin> {
    Some(pin.into())
}

fn of_two(change: ChangePin) -> ChangePin {
    change.uri(Some(TWO.into()))
}

/// What requests without a PIN are told of the enemy's token.
fn without_pin(client: &TestClient) -> [Failure; 2] {
    [
        client.open(KEY_OF_TWO).map(drop).unwrap_err(),
        client.create_key(TWO, P256, "new", None).unwrap_err(),
    ]
}

/// A token is pulled and put back, and with it goes the login.
fn reinsert(fixture: &Fixture, label: &str, client: &TestClient) {
    fixture.faults.set([token(label).hidden()]);
    assert!(
        client
            .list_tokens()
            .iter()
            .all(|token| token.label != label)
    );
    fixture.faults.clear();
    client.token(label);
}

/// Guesses until five PINs were looked at, and the next is not for 4 s; what is told then.
fn guess(mut ask: impl FnMut(&str) -> String, looked_at: &str) -> String {
    let mut left = 5;
    for number in 1.. {
        let told = ask(&format!("guess-{number}"));
        match told.contains(looked_at) {
            true => left -= 1,
            false if left <= 0 => return told,
            false => thread::sleep(Duration::from_millis(50)),
        }
    }
    unreachable!()
}

/// What does one differs in nothing from the other, but that the first sets a guess that is wrong, and the second one that is right.
#[test]
fn a_user_who_sets_the_pin_of_a_token_learns_nothing_of_the_servers_pin() {
    let reset = |new| of_two(ChangePin::new(new).so_pin(some(SO_PIN)).reset(true));
    for is_reset in [false, true] {
        let (fixture, server) = two_tokens();
        let enemy = AsUser::new(&server, ENEMY, ENEMY);
        let mut old = OWN;
        let mut set = |new: &'static str| {
            let change = match is_reset {
                true => reset(new),
                false => of_two(ChangePin::new(new).old_pin(some(old))),
            };
            old = new;
            let stale = enemy.change_pin(change).unwrap().stale.unwrap();
            assert_contains(&stale, ["may hold another PIN", "token=two"]);
            let told = without_pin(&server.client());
            reinsert(&fixture, "two", &enemy);
            let later = without_pin(&server.client());
            // Its own opens it all the same.
            enemy.with_pin(new).open(KEY_OF_TWO).unwrap();
            let beside = without_pin(&server.client());
            let told = [told, later, beside].concat();
            let told: Vec<_> = told.into_iter().map(|failure| failure.message).collect();
            (stale, told)
        };
        assert_eq!(set(GUESS), set(PIN));
        // Nor does the server go on with what comes after its own.
        let (_, told) = set(GUESS);
        for told in told {
            assert_contains(told, ["a client has set the PIN of the token"]);
        }
    }
}

#[test]
fn a_token_whose_pin_a_user_has_set_gets_the_servers_only_when_the_operator_names_it() {
    let fixture = Fixture::new(KeyKind::P256);
    let two = fixture.hsm.init_token("two", OWN, SO_PIN);
    fixture.hsm.generate(&two, &fixture.key.spec);
    let folder = tempfile::tempdir().unwrap();
    let builder = || {
        let builder = fixture.server().pin(PIN);
        builder.envs([("RUNTIME_DIRECTORY", folder.path())])
    };
    let is_left_alone = |server: &Server| {
        let before = fixture.faults.count(C_Login);
        for told in without_pin(&server.client()) {
            assert_contains(told.message, ["a client has set", "name the token"]);
        }
        assert_eq!(fixture.faults.count(C_Login), before);
    };
    let server = builder().start();
    let new = InitToken::new("three").pin(some(GUESS));
    let three = server.client().init_token(new).unwrap().uri;
    for (old, new) in [(OWN, GUESS), (GUESS, PIN)] {
        let change = of_two(ChangePin::new(new).old_pin(some(old)));
        server.client().change_pin(change).unwrap();
        server.sighup();
        is_left_alone(&server);
    }
    drop(server);
    let server = builder().start();
    is_left_alone(&server);
    let told = server.client().create_key(&three, P256, "new", None);
    assert_contains(told.unwrap_err().message, ["a client has set"]);
    drop(server);
    let server = builder().uri(TWO).start();
    server.client().open(KEY_OF_TWO).unwrap().sign().unwrap();
}

#[test]
fn a_new_token_does_not_tell_whether_its_pin_is_the_servers() {
    let (_fixture, server) = two_tokens();
    for pin in [GUESS, PIN] {
        let new = InitToken::new("new")
            .pin(some(pin))
            .so_pin(some(SO_PIN))
            .uri(Some("pkcs11:".into()));
        let made = server.client().init_token(new.clone());
        let uri = made.unwrap().uri;
        let told = server.client().create_key(&uri, P256, "new", None);
        let told = refused(told, ErrorCode::PinIncorrect);
        assert_contains(told.message, ["a client has set the PIN of the token"]);
        if pin == GUESS {
            continue;
        }
        // One that is made with the server's own is the server's.
        let new = InitToken::new("servers").so_pin(some(SO_PIN));
        let uri = server.client().init_token(new).unwrap().uri;
        let client = server.client();
        client.create_key(&uri, P256, "new", None).unwrap();
    }
}

/// Without a policy everybody may change the server's PIN, and is told whether the configuration holds the new one.
#[test]
fn changes_of_the_servers_pin_tell_the_configured_one_to_nobody_who_tries_many() {
    let (_fixture, server) = two_tokens();
    let enemy = AsUser::new(&server, ENEMY, ENEMY);
    let change = |client: &TestClient, new: &str| {
        server.secrets().add(new);
        let change = ChangePin::new(new).uri(Some("pkcs11:token=device".into()));
        client.change_pin(change).unwrap().stale
    };
    let stale = guess(|pin| change(&enemy, pin).unwrap(), "holds another PIN");
    assert_contains(stale, ["may hold another PIN"]);
    let stale = change(&enemy, PIN).unwrap();
    assert_contains(stale, ["may hold another PIN"]);
    let other = AsUser::new(&server, OTHER, OTHER);
    assert_eq!(change(&other, PIN), None);
    other.open(KEY).unwrap().sign().unwrap();
}

/// After a wrong PIN the next one may not be sent: which one would be must not be told in no time.
#[test]
fn where_no_pin_is_sent_any_more_the_right_one_cannot_be_found_by_trying() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().start();
    let enemy = AsUser::new(&server, ENEMY, ENEMY);
    let owner = AsUser::new(&server, OTHER, OTHER);
    owner.with_pin(PIN).open(KEY).unwrap();
    reinsert(&fixture, "device", &owner);
    refused(enemy.with_pin("guess-0").open(KEY), ErrorCode::PinIncorrect);
    let told = |pin: &str| refused(enemy.with_pin(pin).open(KEY), ErrorCode::PinGuarded).message;
    assert_contains(guess(told, "has refused PINs"), ["looked at again in"]);
    let told = refused(enemy.with_pin(PIN).open(KEY), ErrorCode::PinGuarded);
    assert_contains(told.message, ["looked at again in"]);
    owner.with_pin(PIN).open(KEY).unwrap().sign().unwrap();
}

/// The same for the server's PIN at a token that it has never opened.
#[test]
fn where_the_servers_pin_waits_it_cannot_be_found_by_trying() {
    let (fixture, server) = two_tokens();
    let enemy = AsUser::new(&server, ENEMY, ENEMY);
    let guess = |pin: &str| enemy.with_pin(pin).open(KEY_OF_TWO);
    refused(guess("guess-0"), ErrorCode::PinIncorrect);
    let before = fixture.faults.count(C_Login);
    let told = [GUESS, PIN].map(|pin| refused(guess(pin), ErrorCode::PinGuarded).message);
    assert_eq!(told[0], told[1]);
    assert_eq!(fixture.faults.count(C_Login), before);
}

/// Each token that is made without a PIN has the server's for its user and its security officer.
#[test]
fn tokens_with_the_servers_pin_give_no_more_guesses_than_one() {
    let (_fixture, server) = two_tokens();
    let enemy = AsUser::new(&server, ENEMY, ENEMY);
    enemy.with_pin(OWN).open(KEY_OF_TWO).unwrap();
    let (began, mut looked_at) = (Instant::now(), 0);
    for round in 0..4 {
        let new = InitToken::new(format!("new-{round}"));
        let uri = enemy.init_token(new).unwrap().uri;
        for number in 0..4 {
            let guess = format!("guess-{round}-{number}");
            let told = match number {
                0 => {
                    let reset = ChangePin::new(&*guess).so_pin(some(&guess)).reset(true);
                    let reset = reset.uri(Some(uri.as_str().into()));
                    enemy.change_pin(reset).map(drop)
                }
                _ => {
                    let enemy = enemy.with_pin(&guess);
                    enemy.create_key(&uri, P256, "new", None).map(drop)
                }
            };
            looked_at += u32::from(told.unwrap_err().code == ErrorCode::PinIncorrect);
        }
    }
    // Three at once, one after 1 s, one 2 s later.
    let wait = Duration::from_secs((1 << looked_at.saturating_sub(3)) - 1);
    assert!(began.elapsed() >= wait, "{looked_at} guesses");
    // That it has the right one of its own token changes nothing.
    enemy.with_pin(OWN).open(KEY_OF_TWO).unwrap();
    refused(enemy.with_pin(PIN).open(KEY), ErrorCode::PinGuarded);
}

#[test]
fn a_token_outside_of_the_servers_scope_never_gets_its_pin() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).uri("pkcs11:token=device").start();
    let told = server.client().init_token(InitToken::new("new"));
    refused(told, ErrorCode::PinRequired);
    assert_eq!(fixture.faults.count(C_InitToken), 0);
    let new = InitToken::new("new").pin(some(OWN));
    assert!(server.client().init_token(new).unwrap().created);
}
