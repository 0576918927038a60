//! Whatever happens to module, token or session: the next request works, or says why not.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use p11_client::{ErrorCode, Failure, Pin, message::InitToken};
use p11_fault_module::{Function::*, Rule, cryptoki_sys::*, every_token, on, token};
use p11_proto::{Request, Response, message::ListKeys};
use p11_tests::{
    client::{P256, TestClient, refused},
    fixture::{Fixture, KEY, PIN, SO_PIN, TROUBLE},
    keys::KeyKind,
    text::assert_contains,
    tools::run,
    wait::{StopOnDrop, wait_until},
};

#[test]
fn the_next_request_succeeds_whatever_happened_between_two() {
    let closed = || every_token().sessions_closed();
    let not_initialized = |function| on(function).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED);
    for rules in [
        vec![closed()],
        vec![every_token().logged_out()],
        vec![Rule::RenumberObjects],
        vec![Rule::SlotOffset(0x1000)],
        vec![Rule::SlotOffset(0x1000), closed()],
        // A token that was pulled and put back.
        vec![closed(), Rule::RenumberObjects],
        vec![not_initialized(C_SignInit)],
        vec![not_initialized(C_Sign)],
    ] {
        let (fixture, server, key) = Fixture::steady();
        fixture.faults.set(rules);
        key.sign().unwrap();
        key.sign().unwrap();
        server.client().open(KEY).unwrap().sign().unwrap();
    }
}

#[test]
fn a_call_that_fails_once_is_not_noticed() {
    let (fixture, _server, key) = Fixture::steady();
    for code in TROUBLE {
        for function in [C_SignInit, C_Sign] {
            fixture.faults.set([on(function).next(1).returns(code)]);
            key.sign().unwrap();
            fixture
                .faults
                .set([on(function).next(1).after().returns(code)]);
            key.sign().unwrap();
        }
    }
    // A session in which something failed is closed.
    let open = fixture.faults.counts().open_sessions();
    assert!(open <= 3, "{open} sessions are open for one program");
    // Nor on the way back.
    for function in [
        C_GetSlotList,
        C_GetTokenInfo,
        C_OpenSession,
        C_FindObjectsInit,
    ] {
        fixture.faults.set([
            every_token().sessions_closed(),
            on(function).next(1).returns(CKR_DEVICE_ERROR),
        ]);
        let _ = key.sign();
        key.sign().unwrap();
    }
}

#[test]
fn eight_clients_notice_no_trouble() {
    let (fixture, server, _) = Fixture::steady();
    let opened: Vec<_> = (0..8).map(|_| server.client().open(KEY).unwrap()).collect();
    for rule in [
        every_token().sessions_closed(),
        every_token().logged_out(),
        Rule::RenumberObjects,
        on(C_Sign).next(1).returns(CKR_DEVICE_ERROR),
        on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED),
    ] {
        fixture.faults.set([rule]);
        thread::scope(|scope| {
            for key in &opened {
                scope.spawn(|| {
                    for _ in 0..10 {
                        key.sign().unwrap();
                    }
                });
            }
        });
    }
}

#[test]
fn a_search_is_not_misled_by_a_login_that_is_made_meanwhile() {
    let (fixture, _server, key) = Fixture::steady();
    // One after the other they look for private keys before the first has logged in, and miss them
    // after it has.
    fixture.faults.set([
        every_token().sessions_closed(),
        on(C_FindObjectsFinal).delays(50),
    ]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| key.sign().unwrap());
            thread::sleep(Duration::from_millis(12));
        }
    });
}

#[test]
fn a_call_that_fails_for_a_while_is_an_error_until_it_succeeds() {
    for (function, code, name) in [
        (C_Sign, CKR_DEVICE_ERROR, "CKR_DEVICE_ERROR"),
        (C_Sign, CKR_GENERAL_ERROR, "CKR_GENERAL_ERROR"),
        (C_SignInit, CKR_FUNCTION_FAILED, "CKR_FUNCTION_FAILED"),
        (C_SignInit, CKR_DEVICE_MEMORY, "CKR_DEVICE_MEMORY"),
    ] {
        let (fixture, _server, key) = Fixture::steady();
        fixture.faults.set([on(function).returns(code)]);
        for _ in 0..5 {
            let failure = refused(key.sign(), ErrorCode::Module);
            assert_eq!(failure.function.as_deref(), Some(function.name()));
            assert_eq!(failure.ckr.as_deref(), Some(name));
        }
        fixture.faults.clear();
        key.sign().unwrap();
    }
}

#[test]
fn a_token_that_was_pulled_and_put_back_signs_at_once() {
    let (fixture, server, _) = Fixture::steady();
    let over = AtomicBool::new(false);
    let logins = fixture.faults.count(C_Login);
    thread::scope(|scope| {
        let _over = StopOnDrop(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                let key = server.client().open(KEY).unwrap();
                while !over.load(Relaxed) {
                    if let Err(failure) = key.sign() {
                        is_passing(&failure);
                    }
                }
            });
        }
        let key = server.client().open(KEY).unwrap();
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(100));
            fixture.faults.set([token("device").hidden()]);
            thread::sleep(Duration::from_millis(100));
            refused(key.sign(), ErrorCode::TokenNotFound);
            fixture.faults.clear();
            key.sign().unwrap();
        }
    });
    let logins = fixture.faults.count(C_Login) - logins;
    assert!((5..=6).contains(&logins), "{logins} logins for 5 returns");
}

/// What may be said of a token that comes and goes: of its key nothing is known then.
#[track_caller]
fn is_passing(failure: &Failure) {
    let code = failure.code;
    let is_passing = matches!(code, ErrorCode::TokenNotFound | ErrorCode::Module);
    assert!(is_passing, "{code}: {failure}");
}

#[test]
fn tokens_that_exchange_their_slots_never_sign_for_each_other() {
    let fixture = Fixture::new(KeyKind::P256);
    let (_, other_key) = fixture.add_token("other");
    let server = fixture.start();
    let client = server.client();
    let key = client.open(KEY).unwrap();
    let other = client.open("pkcs11:token=other;object=key").unwrap();
    assert_eq!(key.told().spki.as_ref(), fixture.key.spki);
    assert_eq!(other.told().spki.as_ref(), other_key.spki);
    let swapped = || Rule::SwapSlots("device".into(), "other".into());
    // Every signature is verified with the key that was opened.
    for rules in [
        vec![swapped()],
        vec![swapped(), every_token().sessions_closed()],
        vec![every_token().sessions_closed()],
    ] {
        fixture.faults.set(rules);
        key.sign().unwrap();
        other.sign().unwrap();
    }
    // Not even sessions that come anew lead to the other token.
    let there = on(C_SignInit).at("other").returns(CKR_FUNCTION_REJECTED);
    fixture.faults.set([swapped(), there, on(C_Sign).delays(5)]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| key.sign().unwrap());
        }
    });
    // And again and again while programs sign, who may be told so, but never that their key is another.
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = StopOnDrop(&over);
        for key in [&key, &other].into_iter().cycle().take(8) {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Relaxed) {
                    if let Err(failure) = key.sign() {
                        is_passing(&failure);
                    }
                }
            });
        }
        for turn in 0..10 {
            thread::sleep(Duration::from_millis(50));
            match turn % 2 {
                0 => fixture
                    .faults
                    .set([swapped(), every_token().sessions_closed()]),
                _ => fixture.faults.set([every_token().sessions_closed()]),
            }
        }
    });
    fixture.faults.clear();
    key.sign().unwrap();
    other.sign().unwrap();
}

#[test]
fn a_reload_waits_for_running_calls_and_no_call_begins_under_it() {
    let (fixture, server, _) = Fixture::steady();
    let over = AtomicBool::new(false);
    let closed = fixture.faults.count(C_CloseSession);
    fixture.faults.set([
        on(C_Sign).delays(20),
        on(C_Finalize).hangs(),
        on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED),
    ]);
    thread::scope(|scope| {
        let _over = StopOnDrop(&over);
        for _ in 0..4 {
            scope.spawn(|| {
                let key = server.client().open(KEY).unwrap();
                while !over.load(Relaxed) {
                    key.sign().unwrap();
                }
            });
        }
        wait_until(|| fixture.faults.count(C_Finalize) == 1);
        let under_it = fixture.faults.counts();
        thread::sleep(Duration::from_millis(250));
        let calls = fixture.faults.counts().since(&under_it);
        assert_eq!(calls.total(), 0, "{calls}");
        fixture.faults.set([on(C_Sign).delays(20)]);
        wait_until(|| fixture.faults.count(C_Initialize) == 2);
        thread::sleep(Duration::from_millis(100));
    });
    let closed = fixture.faults.count(C_CloseSession) - closed;
    assert!(
        closed <= 1,
        "sessions of the old epoch belong to nobody: {closed}"
    );
}

#[test]
fn a_reload_that_a_running_call_holds_up_is_not_begun_by_each_request() {
    let (fixture, server, key) = Fixture::steady_quick();
    let slow = on(C_Sign).next(1).delays(3500);
    fixture.faults.set([slow]);
    thread::scope(|scope| {
        scope.spawn(|| server.client().open(KEY).unwrap().sign());
        wait_until(|| fixture.faults.count(C_Sign) == 2);
        let lost = on(C_SignInit).returns(CKR_CRYPTOKI_NOT_INITIALIZED);
        fixture.faults.set([lost]);
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            key.sign().unwrap_err();
        }
    });
    let begun = server.log().matches("reloading the PKCS#11 module").count();
    assert!((1..=3).contains(&begun), "{begun}");
}

/// The seconds that a failure names.
fn seconds(failure: &Failure) -> u64 {
    let words: Vec<_> = failure.message.split_whitespace().collect();
    let named = words
        .windows(2)
        .find(|pair| pair[1] == "s" || pair[1].starts_with("s;"));
    let named = named.unwrap_or_else(|| panic!("no seconds in: {failure}"));
    named[0].parse().unwrap()
}

#[test]
fn a_module_that_fails_at_start_is_tried_again_after_pauses() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .faults
        .set([on(C_Initialize).next(3).returns(CKR_DEVICE_ERROR)]);
    let server = fixture.start_quick();
    server.wait_for_log("listening all the same");
    let client = server.client();
    let status = client.status();
    assert!(!status.available);
    let trouble = status.trouble.unwrap();
    assert_contains(&trouble, ["C_Initialize returned CKR_DEVICE_ERROR"]);
    assert!(trouble.contains("tried again in 1 s"), "{trouble}");

    // Asked all the time, it is tried when it is due and not before: after 0.25, 0.5 and 1 s.
    let start = Instant::now();
    let key = loop {
        match client.open(KEY) {
            Ok(key) => break key,
            Err(failure) => {
                assert_eq!(failure.code, ErrorCode::ModuleUnavailable, "{failure}");
                // None where less than a millisecond is left.
                assert!(seconds(&failure) <= 1, "{failure}");
            }
        }
        thread::sleep(Duration::from_millis(20));
    };
    let took = start.elapsed().as_secs_f32();
    assert!((1.6..3.0).contains(&took), "{took} s");
    assert_eq!(fixture.faults.count(C_Initialize), 4);
    key.sign().unwrap();
    assert_eq!(client.status().trouble, None);
}

#[test]
fn a_module_that_fails_to_reload_is_tried_again_when_the_error_says() {
    let (fixture, server, key) = Fixture::steady_quick();
    fixture.faults.set([
        on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED),
        on(C_Initialize).next(1).returns(CKR_GENERAL_ERROR),
    ]);
    let failure = refused(key.sign(), ErrorCode::ModuleUnavailable);
    assert!(failure.message.contains("CKR_GENERAL_ERROR"), "{failure}");
    let client = server.client();
    assert!(!client.status().available);
    thread::sleep(Duration::from_secs(seconds(&failure)));
    key.sign().unwrap();
    assert!(client.status().available);
}

#[test]
fn a_module_that_is_down_comes_up_without_a_request() {
    let (fixture, server, key) = Fixture::steady_quick();
    fixture.faults.set([
        on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED),
        on(C_Initialize).next(2).returns(CKR_GENERAL_ERROR),
    ]);
    refused(key.sign(), ErrorCode::ModuleUnavailable);
    let client = server.client();
    assert!(!client.status().available);
    wait_until(|| client.status().available);
    let before = fixture.faults.count(C_Initialize);
    key.sign().unwrap();
    assert_eq!(fixture.faults.count(C_Initialize), before);
}

#[test]
fn a_module_that_is_never_well_for_long_is_reloaded_with_pauses() {
    let (fixture, _server, key) = Fixture::steady_quick();
    fixture
        .faults
        .set([on(C_Sign).returns(CKR_CRYPTOKI_NOT_INITIALIZED)]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1250) {
        let failure = key.sign().unwrap_err();
        let is_module = failure.code == ErrorCode::Module;
        assert!(
            is_module || failure.code == ErrorCode::ModuleUnavailable,
            "{failure}"
        );
        thread::sleep(Duration::from_millis(10));
    }
    // At 0, 0.25 and 0.75 s.
    assert_eq!(fixture.faults.count(C_Initialize), 1 + 3);
    fixture.faults.clear();
    thread::sleep(Duration::from_secs(1));
    key.sign().unwrap();
}

#[test]
fn a_token_that_another_program_makes_is_found_at_once_or_when_the_error_says() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start_quick();
    let client = server.client();
    let key = client.open(KEY).unwrap();
    let add = |label| {
        let token = fixture.hsm.init_token(label, PIN, SO_PIN);
        fixture.hsm.generate(&token, &fixture.key.spec);
    };
    // Long after the module was initialised, and shortly after.
    add("late");
    client
        .open("pkcs11:token=late;object=key")
        .unwrap()
        .sign()
        .unwrap();
    key.sign().unwrap();
    assert_eq!(fixture.faults.count(C_Initialize), 2);
    add("later");
    let later = "pkcs11:token=later;object=key";
    wait_until(|| client.open(later).is_ok());
    assert_eq!(fixture.faults.count(C_Initialize), 3);
    // One that nobody has made causes no reload but now and then, and the error says when the next is due.
    let failure = refused(client.open("pkcs11:token=none"), ErrorCode::TokenNotFound);
    assert!((1..=4).contains(&seconds(&failure)), "{failure}");
    assert!(failure.message.contains("another program"), "{failure}");
    assert_eq!(fixture.faults.count(C_Initialize), 3);
}

#[test]
fn a_request_about_one_token_that_means_several_causes_no_reload() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = fixture.start_quick();
    let client = server.client();
    client.open(KEY).unwrap();
    // From now on a miss would cause one.
    thread::sleep(Duration::from_millis(4100));
    let all = ListKeys::new("pkcs11:");
    let Response::Error(failure) = client.ask(&Request::ListKeys(all)) else {
        panic!("a listing of two tokens");
    };
    assert_eq!(failure.code, ErrorCode::AmbiguousToken);
    assert_eq!(fixture.faults.count(C_Initialize), 1);
    refused(client.open("pkcs11:object=none"), ErrorCode::AmbiguousToken);
    assert_eq!(fixture.faults.count(C_Initialize), 2, "a key was not found");
}

#[test]
fn tokens_of_other_programs_are_looked_for_before_one_is_chosen_or_made() {
    // Each looks anew by itself, and at once.
    for asks in [
        |client: &TestClient| assert_eq!(client.token("late").label, "late"),
        |client: &TestClient| {
            let made = client.init_token(InitToken::new("late").pin(Pin::from(PIN)));
            assert!(!made.unwrap().created);
        },
        |client: &TestClient| {
            let created = client.create_key("pkcs11:", P256, "new", None);
            refused(created, ErrorCode::AmbiguousToken);
        },
    ] {
        let (fixture, server, key) = Fixture::steady_quick();
        fixture.add_token("late");
        asks(&server.client());
        key.sign().unwrap();
        assert_eq!(fixture.faults.count(C_Initialize), 2);
    }
}

#[test]
fn a_key_that_is_missing_on_a_token_that_is_there_causes_no_reload() {
    let (fixture, server, _) = Fixture::steady_quick();
    // From now on a miss would cause one.
    thread::sleep(Duration::from_millis(4100));
    let serial = &fixture.token.serial;
    for token in ["token=device".into(), format!("serial={serial}")] {
        let uri = format!("pkcs11:{token};object=none");
        refused(server.client().open(&uri), ErrorCode::KeyNotFound);
    }
    assert_eq!(fixture.faults.count(C_Initialize), 1);
}

#[test]
fn keys_and_labels_that_another_program_makes_are_found_at_once() {
    let (fixture, server, _) = Fixture::steady();
    let client = server.client();
    let uri = "pkcs11:token=device;object=late";
    refused(client.open(uri), ErrorCode::KeyNotFound);
    let late = fixture.add_key(KeyKind::P256, "late", 2);
    let key = client.open(uri).unwrap();
    assert_eq!(key.told().spki.as_ref(), late.spki);
    key.sign().unwrap();

    for class in ["private", "public"] {
        run(fixture
            .hsm
            .p11tool(&fixture.token)
            .arg("--set-label=renamed")
            .arg(format!("pkcs11:token=device;object=late;type={class}")));
    }
    let renamed = client.open("pkcs11:token=device;object=renamed").unwrap();
    assert_eq!(renamed.told().spki.as_ref(), late.spki);
    renamed.sign().unwrap();
}

/// What was unclear may be asked once more as soon as the module is up again, whoever brings it up.
#[test]
fn a_reload_that_fails_once_costs_no_more_than_the_pause_after_it() {
    let (fixture, _server, key) = Fixture::steady();
    fixture.faults.set([
        every_token().sessions_closed(),
        on(C_Login).next(1).returns(CKR_GENERAL_ERROR),
        on(C_Initialize).next(1).returns(CKR_GENERAL_ERROR),
    ]);
    assert!(key.sign().is_err());
    let start = Instant::now();
    wait_until(|| key.sign().is_ok());
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_token_that_signs_in_no_life_has_the_module_reloaded_now_and_then_and_is_told_as_trouble() {
    let (fixture, server, key) = Fixture::steady_quick();
    let client = server.client();
    fixture.faults.set([on(C_Sign).returns(CKR_GENERAL_ERROR)]);
    refused(key.sign(), ErrorCode::Module);
    let status = client.status();
    assert!(!status.available);
    let parts = ["token=device", "C_Sign returned CKR_GENERAL_ERROR"];
    assert_contains(status.trouble.unwrap(), parts);

    let reloads = || fixture.faults.count(C_Finalize);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        refused(key.sign(), ErrorCode::Module);
        thread::sleep(Duration::from_millis(10));
    }
    // After 0.25, 0.75, 1.75 and 3.75 s at the earliest.
    assert!((1..=4).contains(&reloads()), "{}", reloads());
    fixture.faults.clear();
    key.sign().unwrap();
    let before = reloads();
    key.sign().unwrap();
    assert_eq!(reloads(), before);
    assert_eq!(client.status().trouble, None);
}
