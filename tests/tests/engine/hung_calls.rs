//! A call that never returns costs its own client an answer, and nobody else anything.

use std::{
    thread,
    time::{Duration, Instant},
};

use p11_client::ErrorCode;
use p11_fault_module::{
    Function::{self, *},
    Rule,
    cryptoki_sys::*,
    on, token,
};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY},
    keys::KeyKind,
    wait::{TIMEOUT, wait_until},
};

/// After this long a request is answered with `Timeout`; after twice that, the server ends. As `quick-server` has it.
const DEADLINE: Duration = Duration::from_secs(2);

/// Runs a job that hangs for ever in this function, in a thread of its own. Other `rules` stay in force.
fn hang<T: Send + 'static>(
    fixture: &Fixture,
    function: Function,
    rules: &[Rule],
    job: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let injected = fixture.faults.counts().injected();
    let hangs = on(function).at("device").next(1).hangs_forever();
    fixture.faults.set(rules.iter().cloned().chain([hangs]));
    let thread = thread::spawn(job);
    wait_until(|| fixture.faults.counts().injected() > injected);
    fixture.faults.set(rules.iter().cloned());
    thread
}

#[test]
fn no_reload_starts_under_a_hung_call_and_the_server_stops_all_the_same() {
    let (fixture, mut server, key) = Fixture::steady_quick();
    let hung = key.clone();
    let _hung = hang(&fixture, C_Sign, &[], move || hung.sign());
    fixture
        .faults
        .set([on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED)]);
    let failure = refused(key.sign(), ErrorCode::Busy);
    assert!(failure.message.contains("reload"), "{failure}");
    // Others go on, and so does who was told so.
    key.sign().unwrap();
    server.client().open(KEY).unwrap().sign().unwrap();
    assert_eq!(fixture.faults.count(C_Finalize), 0);

    let began = Instant::now();
    let status = server.terminate();
    assert!(status.success(), "{status}: {}", server.log());
    assert!(began.elapsed() < Duration::from_secs(6));
    assert_eq!(fixture.faults.count(C_Finalize), 0);
    assert!(server.log().contains("the module is left as it is"));
}

#[test]
fn a_server_stops_while_c_initialize_hangs() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([on(C_Initialize).hangs_forever()]);
    let mut server = fixture.start();
    // Somebody waits for it, too.
    let client = server.client();
    let _waiting = thread::spawn(move || client.open(KEY));
    thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    server.terminate();
    assert!(began.elapsed() < Duration::from_secs(7));
}

#[test]
fn other_tokens_are_not_slowed_down() {
    for function in [C_Sign, C_Login] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.add_token("other");
        // The hung call has the only session of its token.
        let single = [token("device").session_limit(1)];
        fixture.faults.set(single.clone());
        let server = fixture.start();
        let client = server.client();
        let _hung = hang(&fixture, function, &single, move || {
            client.open(KEY)?.sign()
        });
        let began = Instant::now();
        let other = "pkcs11:token=other;object=key";
        server.client().open(other).unwrap().sign().unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{function:?}");
    }
}

#[test]
fn its_client_is_told_of_the_timeout_and_the_others_sign_on() {
    let (fixture, mut server, key) = Fixture::steady_quick();
    let hung = key.clone();
    let began = Instant::now();
    let hung = hang(&fixture, C_Sign, &[], move || (hung.sign(), Instant::now()));
    let mut slowest = Duration::ZERO;
    // After twice the deadline the server ends.
    while began.elapsed() < DEADLINE * 3 / 2 {
        let start = Instant::now();
        key.sign().unwrap();
        slowest = slowest.max(start.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    let (answer, at) = hung.join().unwrap();
    let failure = refused(answer, ErrorCode::Timeout);
    let message = &failure.message;
    assert!(message.contains("did not answer in time"), "{failure}");
    let after = at - began;
    assert!((DEADLINE..DEADLINE * 3 / 2).contains(&after), "{after:?}");
    assert!(slowest < DEADLINE / 2, "{slowest:?}");
    assert!(server.is_running(), "{}", server.log());
    let status = server.client().status();
    let trouble = status.trouble.unwrap();
    assert!(
        !status.available && trouble.contains("C_Sign on "),
        "{trouble}"
    );
    assert_eq!(fixture.faults.count(C_Initialize), 1);
}

#[test]
fn a_server_ends_where_c_initialize_hangs() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([on(C_Initialize).hangs_forever()]);
    let began = Instant::now();
    let mut server = fixture.start_quick();
    refused(server.client().open(KEY), ErrorCode::Timeout);
    let status = server.wait(TIMEOUT);
    let took = began.elapsed();
    assert_eq!(status.code(), Some(1), "{status}: {}", server.log());
    // It looks every second, and nobody is at work any more.
    let due = 2 * DEADLINE..3 * DEADLINE;
    assert!(due.contains(&took), "{took:?}");
}
