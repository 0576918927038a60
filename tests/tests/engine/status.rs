//! What `Status` tells of module, tokens and PINs, and what was done: without a call of any token.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use p11_client::{
    ErrorCode,
    message::{Counters, LoginState, PinOwner, StatusDetails, TokenStatus},
};
use p11_fault_module::{
    Faults,
    Function::{C_GetSlotList, C_Login, C_Sign, C_SignInit},
    Pin, Rule,
    cryptoki_sys::*,
    on, token,
};
use p11_tests::{
    client::{TestClient, refused},
    fixture::{Fixture, KEY, PIN, SO_PIN},
    keys::KeyKind,
    server::Server,
    text::assert_contains,
    wait::wait_until,
};

const WRONG: &str = "wrong-pin-1";

fn details(client: &TestClient) -> StatusDetails {
    *client.status().details.expect("all may list all tokens")
}

fn device(client: &TestClient) -> TokenStatus {
    let mut tokens = details(client).tokens;
    tokens.retain(|token| token.label == "device");
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    tokens.remove(0)
}

fn counters(server: &Server) -> Counters {
    details(&server.client()).counters
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// The token takes so many wrong PINs in a row, the last of which locks it.
fn tries(tries: u32) -> Rule {
    token("device").pin_tries(Pin::User, tries)
}

#[test]
fn a_server_that_was_asked_for_nothing_tells_of_itself_alone() {
    let (fixture, server) = Fixture::started();
    wait_until(|| server.client().status().available);
    let calls = fixture.faults.counts();
    let status = server.client().status();
    assert_eq!(status.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert!(status.uptime.unwrap() < 60, "{:?}", status.uptime);
    let account = status.account.unwrap();
    assert_eq!((account.uid, account.user.as_deref()), (0, Some("root")));
    assert_eq!(status.allowed.unwrap().len(), 8);
    let details = status.details.unwrap();
    assert_eq!(
        details.module.path,
        Faults::module_path().display().to_string()
    );
    assert_eq!((&details.tokens, &details.hung), (&vec![], &vec![]));
    assert_eq!(details.last_error, None);
    assert_eq!(fixture.faults.counts().since(&calls).total(), 0);
}

#[test]
fn what_was_done_is_counted() {
    let before = now();
    let (fixture, server, key) = Fixture::steady();
    let first = counters(&server);
    assert_eq!((first.signatures, first.logins, first.reloads), (1, 1, 0));
    assert_eq!(first.failures, 0);
    assert!((before..=now()).contains(&first.signed_at.unwrap()));
    let took = first.signing_us.unwrap();
    assert!(0 < took && took < 60_000_000, "{took}");
    for _ in 0..3 {
        key.sign().unwrap();
    }
    refused(
        server.client().open("pkcs11:token=nobody"),
        ErrorCode::TokenNotFound,
    );
    fixture
        .faults
        .set([on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED)]);
    key.sign().unwrap();
    let told = details(&server.client());
    let then = &told.counters;
    assert_eq!((then.signatures, then.logins, then.reloads), (5, 2, 1));
    assert_eq!(then.failures, 1);
    assert!(then.connections > first.connections, "{then:?}");
    let error = told.last_error.unwrap();
    assert_eq!(error.code, ErrorCode::TokenNotFound);
    assert!((before..=now()).contains(&error.at));
    assert_contains(&error.message, ["token=nobody"]);
    let module = &told.module;
    assert_eq!(module.manufacturer.as_deref(), Some("SoftHSM"));
    assert!(module.description.as_ref().is_some_and(|it| !it.is_empty()));
    let version = module.version.as_deref().unwrap();
    assert!(version.starts_with("2."), "{version}");
}

#[test]
fn an_accepted_pin_is_told_with_its_time_and_its_owner() {
    let before = now();
    let (fixture, server, key) = Fixture::steady();
    let told = device(&server.client());
    assert_eq!(told.pin, LoginState::Accepted);
    assert_eq!(told.pin_owner, Some(PinOwner::Server));
    assert_eq!(
        told.pin_origin.as_deref(),
        Some("TEDGE_DEVICE_CRYPTOKI_PIN")
    );
    assert_eq!(told.reason, None);
    let since = told.since.unwrap();
    assert!((before..=now()).contains(&since), "{since}");
    assert_contains(&told.uri, ["token=device", "serial="]);
    // It stays the first time, also after another login.
    thread::sleep(Duration::from_millis(1100));
    fixture
        .faults
        .set([on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED)]);
    key.sign().unwrap();
    assert_eq!(counters(&server).logins, 2);
    assert_eq!(device(&server.client()).since, Some(since));
}

#[test]
fn a_refused_pin_is_told_until_another_one_is_right() {
    let fixture = Fixture::new(KeyKind::P256);
    let toml = |pin: &str| format!("[device.cryptoki]\npin = \"{pin}\"\n");
    let server = fixture.server().tedge_toml(&toml(WRONG)).start();
    server.secrets().add(WRONG);
    let client = server.client();
    client.token("device");
    let told = device(&client);
    assert_eq!((told.pin, told.since), (LoginState::NotTried, None));
    assert_eq!(told.pin_owner, Some(PinOwner::Server));
    assert_eq!(told.reason, None);

    let before = now();
    let failure = refused(client.open(KEY), ErrorCode::PinIncorrect);
    let told = device(&client);
    assert_eq!(told.pin, LoginState::Refused);
    assert!((before..=now()).contains(&told.since.unwrap()));
    let file = server.folder().join("tedge.toml");
    let origin = format!("device.cryptoki.pin in {} line 2", file.display());
    assert_eq!(told.pin_origin.as_ref(), Some(&origin));
    assert_contains(told.reason.unwrap(), [origin.as_str(), "SIGHUP"]);
    let error = details(&client).last_error.unwrap();
    assert_eq!(
        (error.code, &error.message),
        (failure.code, &failure.message)
    );

    // Asking tells nothing of a PIN and costs no try.
    let logins = fixture.faults.count(C_Login);
    std::fs::write(&file, toml(PIN)).unwrap();
    server.sighup();
    let told = device(&client);
    assert_eq!((told.pin, told.since), (LoginState::NotTried, None));
    assert_eq!(fixture.faults.count(C_Login), logins);
    client.open(KEY).unwrap().sign().unwrap();
    assert_eq!(device(&client).pin, LoginState::Accepted);
}

#[test]
fn a_token_that_takes_no_pin_is_locked_and_one_with_a_last_try_guarded() {
    for (left, state, words) in [
        (1, LoginState::Guarded, "one PIN try left"),
        (0, LoginState::Locked, "is locked"),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.faults.set([tries(3)]);
        for _ in left..3 {
            assert!(!fixture.tries_pin(Pin::User, WRONG));
        }
        let server = fixture.server().pin(PIN).start();
        let client = server.client();
        client.token("device");
        let told = device(&client);
        assert_eq!(told.pin, state, "{told:?}");
        assert_contains(told.reason.unwrap(), [words]);
        assert_eq!(fixture.faults.count(C_Login), 3 - left);
    }
}

#[test]
fn where_the_server_has_no_pin_the_clients_last_one_is_told() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture
        .server()
        .envs([("TEDGE_DEVICE_CRYPTOKI_PIN", "")])
        .start();
    server.secrets().add(WRONG);
    let client = server.client();
    client.token("device");
    let told = device(&client);
    assert_eq!((told.pin, told.pin_owner), (LoginState::NotTried, None));
    assert!(told.reason.is_some(), "nobody has set one");
    refused(client.with_pin(WRONG).open(KEY), ErrorCode::PinIncorrect);
    let told = device(&client);
    assert_eq!(told.pin, LoginState::Refused);
    assert_eq!(told.pin_owner, Some(PinOwner::Client));
    assert!(told.since.is_some());
    client.with_pin(PIN).open(KEY).unwrap();
    let told = device(&client);
    assert_eq!(told.pin, LoginState::Accepted);
    assert_eq!(told.pin_owner, Some(PinOwner::Client));
}

#[test]
fn a_client_that_opens_a_token_does_not_hide_that_the_servers_pin_is_wrong() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(WRONG).start();
    let client = server.client();
    refused(client.open(KEY), ErrorCode::PinIncorrect);
    client.with_pin(PIN).open(KEY).unwrap();
    let told = device(&client);
    assert_eq!(told.pin, LoginState::Accepted);
    assert_eq!(told.pin_owner, Some(PinOwner::Client));
    assert_contains(told.reason.unwrap(), ["TEDGE_DEVICE_CRYPTOKI_PIN"]);
}

#[test]
fn the_pin_that_a_client_has_set_is_the_servers_by_change_pin() {
    let (_fixture, server, _key) = Fixture::steady();
    let client = server.client();
    let before = device(&client).since;
    thread::sleep(Duration::from_millis(1100));
    let change = p11_client::message::ChangePin::new("other-sesame").old_pin(Some(PIN.into()));
    client.change_pin(change).unwrap();
    server.secrets().add("other-sesame");
    let told = device(&client);
    assert_eq!(told.pin, LoginState::Accepted);
    assert_eq!(told.pin_origin.as_deref(), Some("ChangePin"));
    assert!(told.since > before, "{told:?}");
}

#[test]
fn hung_calls_are_told_with_token_and_seconds() {
    let (fixture, server, key) = Fixture::steady_quick();
    assert_eq!(details(&server.client()).hung, []);
    fixture.faults.set([on(C_Sign).hangs()]);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| drop(key.sign()));
        }
        wait_until(|| details(&server.client()).hung.len() == 2);
        for hung in details(&server.client()).hung {
            assert_eq!(hung.function, "C_Sign");
            assert_contains(hung.token.unwrap(), ["token=device"]);
            assert!(hung.seconds >= 2, "{}", hung.seconds);
        }
        fixture.faults.clear();
    });
}

#[test]
fn slots_that_cannot_be_listed_are_trouble_until_they_can() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let client = server.client();
    for _ in 0..2 {
        assert!(!client.list_tokens().is_empty());
        assert!(client.status().available);
        let fails = on(C_GetSlotList).returns(CKR_DEVICE_ERROR);
        fixture.faults.set([fails]);
        refused(client.list_keys("pkcs11:token=device"), ErrorCode::Module);
        let status = client.status();
        assert!(!status.available);
        let trouble = status.trouble.unwrap();
        assert_contains(trouble, ["C_GetSlotList returned CKR_DEVICE_ERROR"]);
        fixture.faults.clear();
    }
}

#[test]
fn a_token_out_of_scope_is_not_told_of() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.hsm.init_token("other", PIN, SO_PIN);
    let builder = fixture.server().pin(PIN);
    let server = builder.uri("pkcs11:token=device").start();
    server.client().open(KEY).unwrap();
    let tokens = details(&server.client()).tokens;
    assert_eq!(tokens.len(), 1, "{tokens:?}");
}

#[test]
fn a_pin_that_is_never_sent_is_guarded_with_the_reason() {
    let fixture = Fixture::new(KeyKind::P256);
    let builder = fixture.server();
    let server = builder.envs([("TEDGE_DEVICE_CRYPTOKI_PIN", "12")]).start();
    server.client().token("device");
    let told = device(&server.client());
    assert_eq!((told.pin, told.since), (LoginState::Guarded, None));
    assert_contains(told.reason.unwrap(), ["takes PINs of 4 to"]);

    // Two were refused, and the default one is not sent any more.
    let server = fixture.server().start();
    server.secrets().add(WRONG);
    let client = server.client();
    for pin in [WRONG, "wrong-pin-2"] {
        refused(client.with_pin(pin).open(KEY), ErrorCode::PinIncorrect);
    }
    let told = device(&client);
    assert_eq!(told.pin, LoginState::Guarded);
    assert_eq!(told.pin_owner, Some(PinOwner::Default));
    assert!(told.since.is_some());
    assert_contains(told.reason.unwrap(), ["has refused PINs"]);
    assert_eq!(fixture.faults.count(C_Login), 2);
}

#[test]
fn a_pin_pad_and_a_token_without_a_login_are_told_as_such() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([token("device").pin_pad(PIN)]);
    let server = fixture.server().start();
    let client = server.client();
    client.token("device");
    let told = device(&client);
    assert_eq!(told.pin, LoginState::NotTried);
    assert_eq!(told.pin_owner, Some(PinOwner::PinPad));
    client.open(KEY).unwrap().sign().unwrap();
    let told = device(&client);
    assert_eq!(told.pin, LoginState::Accepted);
    assert_eq!(told.pin_owner, Some(PinOwner::PinPad));
    assert!(told.since.is_some());

    fixture.faults.set([token("device").asks_no_login()]);
    let server = fixture.server().pin(PIN).start();
    server.client().token("device");
    let told = device(&server.client());
    assert_eq!((told.pin, told.pin_owner), (LoginState::NotNeeded, None));
}
