//! PINs that clients guess, burn or lose, and operators mistype.

use std::{
    fs,
    time::{Duration, Instant},
};

use p11_client::{
    ErrorCode,
    message::{ChangePin, InitToken},
};
use p11_fault_module::{
    Function::{C_Finalize, C_InitToken, C_Login, C_SetPIN},
    Pin,
    TokenFault::Flags,
    cryptoki_sys::*,
    every_token, on, token,
};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    server::{Builder, Server},
    text::assert_contains,
    wait::wait_until,
};

use p11_tests::as_user::AsUser;

const WRONG: &str = "wrong-pin-1";
const NEW: &str = "another-pin";
const ALICE: u32 = 4711;

/// The PIN is in `tedge.toml`.
fn with_file(builder: Builder, pin: &str) -> Builder {
    builder.tedge_toml(&toml(pin))
}

fn toml(pin: &str) -> String {
    format!("[device.cryptoki]\npin = \"{pin}\"\n")
}

#[test]
fn guesses_while_the_token_is_logged_in_are_few_cost_no_try_and_harm_nobody() {
    let (fixture, server) = Fixture::started();
    let key = server.client().open(KEY).unwrap();
    key.sign().unwrap();
    let alice = AsUser::new(&server, ALICE, ALICE);
    let (mut looked_at, mut asked) = (0, 0);
    let began = Instant::now();
    // Three at once, one after 1 s, one 2 s later.
    while looked_at < 5 {
        asked += 1;
        let guess = format!("guess-{asked}");
        let failure = alice.with_pin(&guess).open(KEY).map(drop).unwrap_err();
        match failure.code {
            ErrorCode::PinIncorrect => looked_at += 1,
            ErrorCode::PinGuarded => assert_contains(&failure.message, ["looked at again in"]),
            _ => panic!("{failure}"),
        }
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert!(asked > 20, "{asked}");
    // The right one of the same user is not looked at for 4 s either; the server's serves all.
    refused(alice.with_pin(PIN).open(KEY), ErrorCode::PinGuarded);
    alice.open(KEY).unwrap().sign().unwrap();
    server.client().with_pin(PIN).open(KEY).unwrap();
    key.sign().unwrap();
    assert_eq!(fixture.faults.count(C_Login), 1);
    let warned = || server.log().matches("has brought a PIN").count();
    wait_until(|| warned() == looked_at);
}

#[test]
fn wrong_pins_of_clients_never_reach_a_token_that_the_servers_opens() {
    let (fixture, server) = Fixture::started();
    fixture
        .faults
        .set([token("device").pin_tries(Pin::User, 3)]);
    let client = server.client();
    for pin in [WRONG, "wrong-pin-2"] {
        refused(client.with_pin(pin).open(KEY), ErrorCode::PinIncorrect);
    }
    let key = client.open(KEY).unwrap();
    key.sign().unwrap();
    assert_eq!(fixture.faults.count(C_Login), 1);
    // Nor by a request for what is not there, which has the module reloaded, nor after the login was lost.
    for uri in ["pkcs11:token=device;object=none", "pkcs11:token=none"] {
        assert!(client.with_pin(WRONG).open(uri).is_err());
    }
    fixture.faults.set([
        token("device").pin_tries(Pin::User, 3),
        token("device").logged_out(),
    ]);
    refused(client.with_pin(WRONG).open(KEY), ErrorCode::PinIncorrect);
    key.sign().unwrap();
    assert!(!server.log().contains("CKR_PIN_INCORRECT"));
}

#[test]
fn a_wrong_pin_of_the_security_officer_is_sent_to_a_new_token_once() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let client = server.client();
    let ask = || {
        let request = InitToken::new("new").so_pin(Some(WRONG.into()));
        client.init_token(request)
    };
    fixture
        .faults
        .set([on(C_InitToken).returns(CKR_PIN_INCORRECT)]);
    for _ in 0..4 {
        let told = refused(ask(), ErrorCode::PinIncorrect);
        assert_contains(&told.message, ["The specified PIN is incorrect"]);
    }
    let other = InitToken::new("new").so_pin(Some(NEW.into()));
    refused(client.init_token(other), ErrorCode::PinGuarded);
    assert_eq!(fixture.faults.count(C_InitToken), 1);
    fixture.faults.clear();
    server.sighup();
    assert!(ask().unwrap().created);
}

#[test]
fn a_token_that_could_not_be_made_has_refused_no_pin() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let client = server.client();
    let key = client.open(KEY).unwrap();
    key.sign().unwrap();
    for code in [CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY, CKR_GENERAL_ERROR] {
        fixture.faults.set([on(C_InitToken).returns(code)]);
        for so_pin in [SO_PIN, NEW, SO_PIN] {
            let request = InitToken::new("new").so_pin(Some(so_pin.into()));
            let told = refused(client.init_token(request), ErrorCode::Module);
            assert_eq!(told.function.as_deref(), Some("C_InitToken"));
        }
    }
    // Nor is it trouble of those who sign.
    key.sign().unwrap();
    assert_eq!(fixture.faults.count(C_Finalize), 0);
    fixture.faults.clear();
    assert!(client.init_token(InitToken::new("new")).unwrap().created);
}

#[test]
fn a_new_token_is_not_touched_at_the_final_try_nor_with_pins_that_it_does_not_take() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let client = server.client();
    // SoftHSM says of such a token that its PIN is locked and to be changed, and has none.
    let locked = CKF_SO_PIN_LOCKED;
    for (set, clear, code) in [
        (CKF_SO_PIN_FINAL_TRY, 0, ErrorCode::PinGuarded),
        (CKF_SO_PIN_FINAL_TRY, locked, ErrorCode::PinGuarded),
        (locked, CKF_SO_PIN_TO_BE_CHANGED, ErrorCode::PinLocked),
    ] {
        let flags = Flags { set, clear };
        fixture.faults.set([every_token().has(flags)]);
        let told = refused(client.init_token(InitToken::new("new")), code);
        assert_contains(&told.message, ["the security officer's PIN"]);
        if code == ErrorCode::PinGuarded {
            assert_contains(&told.message, ["--login-type so"]);
        }
    }
    fixture.faults.clear();
    for (so_pin, pin) in [(SO_PIN, "12"), ("12", PIN)] {
        let request = InitToken::new("new")
            .so_pin(Some(so_pin.into()))
            .pin(Some(pin.into()));
        let told = refused(client.init_token(request), ErrorCode::BadRequest);
        assert_contains(&told.message, ["4 to 255 characters"]);
    }
    assert_eq!(fixture.faults.count(C_InitToken), 0);
}

#[test]
fn a_new_token_that_says_that_its_pin_is_locked_or_wrong_is_left_alone() {
    for (answer, code) in [
        (CKR_PIN_LOCKED, ErrorCode::PinLocked),
        (CKR_PIN_INCORRECT, ErrorCode::PinIncorrect),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        let server = fixture.start();
        fixture.faults.set([on(C_InitToken).returns(answer)]);
        let client = server.client();
        for _ in 0..3 {
            let told = refused(client.init_token(InitToken::new("new")), code);
            let is_locked = told.message.contains("is locked now");
            assert!(
                !is_locked,
                "SoftHSM says so of each blank slot: {}",
                told.message
            );
        }
        assert_eq!(fixture.faults.count(C_InitToken), 1);
    }
}

#[test]
fn a_default_pin_makes_no_token_and_a_new_token_is_its_makers() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().start();
    server.secrets().add(NEW);
    let client = server.client();
    refused(
        client.init_token(InitToken::new("new")),
        ErrorCode::PinRequired,
    );
    assert_eq!(fixture.faults.count(C_InitToken), 0);
    let request = InitToken::new("new").pin(Some(NEW.into()));
    let ready = client.init_token(request).unwrap();
    let p256 = p11_tests::client::P256;
    let with_pin = client.with_pin(NEW);
    let made = with_pin.create_key(&ready.uri, p256, "made", None).unwrap();
    refused(client.open(&made.uri), ErrorCode::PinRequired);
    with_pin.open(&made.uri).unwrap().sign().unwrap();
}

#[test]
fn restarts_with_a_wrong_pin_cost_one_try() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .faults
        .set([token("device").pin_tries(Pin::User, 10)]);
    let folder = tempfile::tempdir().unwrap();
    let start = |pin| {
        let builder = fixture
            .server()
            .envs([("RUNTIME_DIRECTORY", folder.path())]);
        let server = with_file(builder, pin).start();
        server.secrets().add(WRONG);
        server
    };
    for _ in 0..3 {
        let server = start(WRONG);
        for _ in 0..3 {
            let told = refused(server.client().open(KEY), ErrorCode::PinIncorrect);
            assert_contains(&told.message, ["tedge.toml"]);
        }
    }
    assert_eq!(fixture.faults.count(C_Login), 1);
    let kept = fs::read_to_string(folder.path().join("refused-pins")).unwrap();
    assert!(!kept.contains(WRONG));
    // Another one gets in.
    let server = start(PIN);
    server.client().open(KEY).unwrap().sign().unwrap();
    drop(server);
    // What is broken is said and starts anew.
    fs::write(folder.path().join("refused-pins"), "broken").unwrap();
    let server = start(WRONG);
    refused(server.client().open(KEY), ErrorCode::PinIncorrect);
    assert_contains(server.log(), ["refused-pins is broken"]);
}

#[test]
fn a_reload_frees_an_unchanged_pin_once() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = with_file(fixture.server(), WRONG).start();
    server.secrets().add(WRONG);
    let ask = || refused(server.client().open(KEY), ErrorCode::PinIncorrect);
    for logins in [1, 2, 2, 2] {
        let told = ask();
        if fixture.faults.count(C_Login) == 2 {
            // The second time the answer that refuses it is of a moment ago.
            let again = ask();
            assert_contains(again.message, ["A reload has freed", "next boot"]);
        } else {
            assert!(!told.message.contains("next boot"), "{told}");
        }
        assert_eq!(fixture.faults.count(C_Login), logins);
        server.sighup();
    }
    fs::write(server.folder().join("tedge.toml"), toml(PIN)).unwrap();
    server.sighup();
    server.client().open(KEY).unwrap().sign().unwrap();
}

#[test]
fn a_key_that_needs_no_login_signs_while_the_pin_is_guarded() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .hsm
        .store_pair_for_everybody(&fixture.token, "open", &[2]);
    let server = with_file(fixture.server(), WRONG).start();
    server.secrets().add(WRONG);
    let client = server.client();
    refused(client.open(KEY), ErrorCode::PinIncorrect);
    refused(
        client.with_pin("wrong-pin-2").open(KEY),
        ErrorCode::PinIncorrect,
    );
    refused(client.with_pin(PIN).open(KEY), ErrorCode::PinGuarded);
    client.open("pkcs11:object=open").unwrap().sign().unwrap();
    assert_eq!(fixture.faults.count(C_Login), 2);
}

const PIN_OPERATIONS: &str = "\"change-pin\", \"init-token\"";

/// A server whose rule for Alice holds for this URI.
fn with_rule(fixture: &Fixture, operations: &str, uri: &str) -> Server {
    let builder = fixture.server().pin(PIN);
    let policy = builder.folder().join("policy.toml");
    let rule = format!(
        "[[rule]]\nusers = [{ALICE}]\noperations = [{operations}]\nuri = \"{uri}\"\n\
         [[rule]]\nusers = [0]\noperations = [\"sign\"]\n"
    );
    fs::write(&policy, rule).unwrap();
    let server = builder
        .args(["--policy".as_ref(), policy.as_os_str()])
        .start();
    server.secrets().add(NEW);
    server
}

#[test]
fn while_a_policy_is_in_force_pins_are_changed_by_who_knows_the_old_one() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = with_rule(&fixture, PIN_OPERATIONS, "pkcs11:token=device");
    let alice = AsUser::new(&server, ALICE, ALICE);
    let told = refused(alice.change_pin(ChangePin::new(NEW)), ErrorCode::BadRequest);
    assert_contains(&told.message, ["old_pin"]);
    assert_eq!(fixture.faults.count(C_SetPIN), 0);
    let changed = alice.change_pin(ChangePin::new(NEW).old_pin(Some(PIN.into())));
    changed.unwrap();
}

#[test]
fn who_may_touch_one_object_may_not_change_the_pin_of_the_token() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = with_rule(&fixture, PIN_OPERATIONS, KEY);
    let alice = AsUser::new(&server, ALICE, ALICE);
    for change in [
        ChangePin::new(NEW).old_pin(Some(PIN.into())),
        ChangePin::new(NEW).so_pin(Some(SO_PIN.into())).reset(true),
    ] {
        let told = refused(alice.change_pin(change), ErrorCode::NotAllowed);
        assert_contains(&told.message, ["the whole token", "rule 1"]);
    }
    let new = InitToken::new("device")
        .so_pin(Some(NEW.into()))
        .pin(Some(NEW.into()));
    refused(alice.init_token(new), ErrorCode::NotAllowed);
    let calls = fixture.faults.counts();
    assert_eq!(calls.of(C_SetPIN) + calls.of(C_Login), 0, "{calls}");
}

#[test]
fn a_pin_is_not_compared_for_who_may_not_touch_the_token() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = with_rule(&fixture, "\"sign\", \"list\"", "pkcs11:token=second");
    let alice = AsUser::new(&server, ALICE, ALICE);
    server.client().open(KEY).unwrap();
    alice.open("pkcs11:token=second;object=key").unwrap();
    for guess in 0..12 {
        let guess = alice.with_pin(&format!("guess-{guess}"));
        refused(guess.open(KEY), ErrorCode::NotAllowed);
        refused(
            guess.list_keys("pkcs11:token=device"),
            ErrorCode::NotAllowed,
        );
        refused(guess.get_public_key(KEY), ErrorCode::NotAllowed);
    }
    assert!(
        !server.log().contains("has brought a PIN"),
        "{}",
        server.log()
    );
}

#[test]
fn a_pin_of_a_length_that_the_token_never_takes_is_not_sent() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = with_file(fixture.server(), "12").start();
    let told = refused(server.client().open(KEY), ErrorCode::PinIncorrect);
    assert_contains(&told.message, ["4 to 255 characters", "tedge.toml"]);
    assert_eq!(fixture.faults.count(C_Login), 0);
}

#[test]
fn what_says_nothing_of_the_pin_is_told_with_what_to_do() {
    for (code, advice) in [
        (CKR_USER_PIN_NOT_INITIALIZED, "has no user PIN yet"),
        (CKR_PIN_EXPIRED, "has expired"),
        (CKR_USER_TYPE_INVALID, "its own tool"),
        (CKR_USER_ANOTHER_ALREADY_LOGGED_IN, "end the program"),
        (CKR_TOKEN_NOT_RECOGNIZED, "the right card"),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.faults.set([on(C_Login).returns(code)]);
        let server = fixture.start();
        let told = refused(server.client().open(KEY), ErrorCode::Module);
        assert_contains(&told.message, ["token=device", advice]);
        assert_eq!(told.function.as_deref(), Some("C_Login"));
    }
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([on(C_Login).returns(CKR_PIN_LOCKED)]);
    let server = fixture.start();
    for _ in 0..4 {
        let told = refused(server.client().open(KEY), ErrorCode::PinLocked);
        assert_contains(&told.message, ["token=device", "unlock it"]);
    }
    // Its flags do not say so. It is asked again after a pause, or at once after a reload.
    assert_eq!(fixture.faults.count(C_Login), 1);
    fixture.faults.clear();
    server.sighup();
    server.client().open(KEY).unwrap();
}

#[test]
fn an_unclear_answer_is_followed_by_one_reload_and_one_more_try_after_a_pause() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([on(C_Login).returns(CKR_GENERAL_ERROR)]);
    let server = fixture.start_quick();
    for _ in 0..8 {
        assert!(server.client().open(KEY).is_err());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(fixture.faults.count(C_Login), 2);
    let told = refused(server.client().open(KEY), ErrorCode::PinGuarded);
    assert_contains(&told.message, ["unclear answer"]);
    fixture.faults.clear();
    server.sighup();
    server.client().open(KEY).unwrap().sign().unwrap();
}

#[test]
fn whatever_hides_a_refusal_counts_as_one() {
    const CKR_OF_A_MAKER: CK_RV = 0x8000_0001;
    for code in [
        CKR_OF_A_MAKER,
        CKR_DEVICE_MEMORY,
        CKR_HOST_MEMORY,
        CKR_FUNCTION_CANCELED,
        CKR_PIN_EXPIRED,
        CKR_ARGUMENTS_BAD,
        // Both happen while the call runs.
        CKR_DEVICE_REMOVED,
        CKR_SESSION_CLOSED,
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.faults.set([on(C_Login).after().returns(code)]);
        // A server without a PIN, so that those of clients are sent.
        let server = fixture.server().envs([("TEDGE_DEVICE_CRYPTOKI_PIN", "")]);
        let server = server.start();
        for number in 0..8 {
            let pin = format!("90246{number}");
            server.secrets().add(&pin);
            assert!(server.client().with_pin(&pin).open(KEY).is_err());
        }
        let sent = fixture.faults.count(C_Login);
        assert!(sent <= 2, "{sent} tries with {code:#x}");
    }
}
