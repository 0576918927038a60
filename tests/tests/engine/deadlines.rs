//! A request has one deadline for all that it waits for, and ends with it.

use std::{
    thread,
    time::{Duration, Instant},
};

use p11_client::{ErrorCode, Failure};
use p11_fault_module::{Function::*, Rule, cryptoki_sys::*, on, token};
use p11_tests::{
    client::{P256, refused},
    fixture::{Fixture, KEY},
    keys::KeyKind,
    wait::wait_until,
};

/// When `quick-server` answers with `Timeout`.
const DEADLINE: Duration = Duration::from_secs(2);

/// Waits until no call has been made for a second.
fn rests(fixture: &Fixture) -> Duration {
    let began = Instant::now();
    loop {
        let before = fixture.faults.total();
        thread::sleep(Duration::from_secs(1));
        if fixture.faults.total() == before {
            return began.elapsed();
        }
    }
}

#[test]
fn what_a_request_waits_for_one_after_the_other_adds_up_to_its_deadline() {
    let each = 1200;
    for rules in [
        // The slots, what is on the token, the login.
        vec![
            on(C_GetSlotList).delays(each),
            on(C_FindObjectsInit).delays(each),
            on(C_Login).delays(each),
        ],
        // Each object of a search.
        vec![on(C_GetAttributeValue).delays(300)],
        vec![on(C_FindObjects).delays(700)],
        // A session after the other.
        vec![on(C_OpenSession).delays(each), on(C_Login).delays(each)],
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.fill(40);
        let server = fixture.start_quick();
        fixture.faults.set(rules.clone());
        let start = Instant::now();
        refused(server.client().open(KEY), ErrorCode::Timeout);
        let took = start.elapsed();
        assert!(
            took < DEADLINE + Duration::from_secs(1),
            "{rules:?}: {took:?}"
        );
        // Nobody waits any more: the call that runs is the last, but for those that end a search and a session.
        let rested = rests(&fixture);
        assert!(rested < Duration::from_secs(6), "{rules:?}: {rested:?}");
        fixture.faults.clear();
        server.client().open(KEY).unwrap().sign().unwrap();
    }
}

#[test]
fn a_wait_for_a_reload_for_a_session_and_for_a_login_has_one_deadline() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([token("device").session_limit(1)]);
    let server = fixture.start_quick();
    let client = server.client();
    let key = client.open(KEY).unwrap();
    key.sign().unwrap();
    let one = || token("device").session_limit(1);
    let lost = on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED);
    fixture.faults.set([
        one(),
        lost,
        on(C_Finalize).delays(1900),
        on(C_Initialize).delays(1900),
        on(C_Login).delays(1900),
        on(C_GenerateKeyPair).delays(1900),
    ]);
    let answers = thread::scope(|scope| {
        scope.spawn(|| {
            client
                .create_key("pkcs11:token=device", P256, "new", None)
                .map(drop)
        });
        let sign = || {
            let start = Instant::now();
            let answer = key.sign();
            (answer, start.elapsed())
        };
        let signers = [(); 4].map(|()| scope.spawn(sign));
        signers.map(|signer| signer.join().unwrap())
    });
    for (answer, took) in &answers {
        // Two of the waits are 3.8 s.
        assert!(*took < Duration::from_millis(3500), "{took:?}: {answer:?}");
        let code = answer.as_ref().map_err(|failure| failure.code);
        let is_due = matches!(code, Ok(()) | Err(ErrorCode::Timeout | ErrorCode::Busy));
        assert!(is_due, "{answer:?}");
    }
    let timed_out = |answer: &Result<(), Failure>| matches!(answer, Err(failure) if failure.code == ErrorCode::Timeout);
    let any_timed_out = answers.iter().any(|(answer, _)| timed_out(answer));
    assert!(any_timed_out, "nobody waited so long: {answers:?}");
    fixture.faults.set([one()]);
    rests(&fixture);
    key.sign().unwrap();
}

#[test]
fn a_search_ends_soon_after_its_client_has_left() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.fill(1000);
    // With the deadlines of the real server.
    let server = fixture.start();
    fixture.faults.set([on(C_GetAttributeValue).delays(100)]);
    let before = fixture.faults.count(C_GetAttributeValue);
    {
        use std::io::Write;
        let mut raw = p11_tests::raw_client::RawClient::with_preamble(server.socket());
        let open = p11_proto::message::OpenKey::new("pkcs11:token=device");
        raw.send(&p11_proto::Request::OpenKey(open)).unwrap();
        raw.0.flush().unwrap();
        wait_until(|| fixture.faults.count(C_GetAttributeValue) > before + 3);
    }
    let rested = rests(&fixture);
    assert!(rested < Duration::from_secs(4), "{rested:?}");
}

#[test]
fn no_reload_begins_after_the_server_has_begun_to_stop() {
    let (fixture, mut server, key) = Fixture::steady();
    let injected = fixture.faults.counts().injected();
    let lost: [Rule; 2] = [
        on(C_SignInit).next(1).delays(1500),
        on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED),
    ];
    fixture.faults.set(lost);
    let signs = thread::spawn(move || key.sign());
    wait_until(|| fixture.faults.counts().injected() > injected);
    assert_eq!(server.terminate().code(), Some(0));
    let _ = signs.join();
    let calls = fixture.faults.counts();
    assert_eq!(calls.of(C_Initialize), 1, "{calls}");
    assert!(!server.log().contains("reloading"), "{}", server.log());
}
