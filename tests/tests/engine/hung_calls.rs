//! A call that never returns costs its own client an answer, and nobody else anything.

use std::{
    os::unix::net::UnixDatagram,
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
    client::{ClientKey, refused},
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    server::Server,
    wait::wait_until,
};

/// After this long a request is answered with `Timeout`; after twice that, a token on which nothing
/// completes is given up.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server that has signed once with the key.
fn steady() -> (Fixture, Server, ClientKey) {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let key = server.client().open(KEY).unwrap();
    key.sign().unwrap();
    (fixture, server, key)
}

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
fn no_reload_starts_under_it_and_the_server_still_stops_quickly() {
    let (fixture, mut server, key) = steady();
    let stuck = key.clone();
    let _stuck = hang(&fixture, C_Sign, &[], move || stuck.sign());
    let began = Instant::now();
    fixture
        .faults
        .set([on(C_SignInit).next(1).returns(CKR_CRYPTOKI_NOT_INITIALIZED)]);
    let failure = refused(key.sign(), ErrorCode::Busy);
    assert!(failure.message.contains("reload"), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(7));
    // Others go on, and so does who was told so.
    key.sign().unwrap();
    server.client().open(KEY).unwrap().sign().unwrap();
    assert_eq!(fixture.faults.count(C_Finalize), 0);

    let began = Instant::now();
    assert!(server.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(6));
    assert_eq!(fixture.faults.count(C_Finalize), 0);
    assert!(server.log().contains("the module is left as it is"));
}

#[test]
fn a_server_that_stops_while_the_module_is_initialised_does_not_wait_for_it() {
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
fn other_tokens_are_as_quick_as_ever() {
    for function in [C_Sign, C_Login] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.add_token("other");
        // What hangs has the only session of its token.
        let single = [token("device").session_limit(1)];
        fixture.faults.set(single.clone());
        let server = fixture.start();
        let client = server.client();
        let job = move || client.open(KEY)?.sign();
        let _stuck = hang(&fixture, function, &single, job);
        let began = Instant::now();
        let other = "pkcs11:token=other;object=key";
        server.client().open(other).unwrap().sign().unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{function:?}");
    }
}

/// What takes a minute to be seen, at the same time.
#[test]
fn what_becomes_of_it_in_the_end() {
    thread::scope(|scope| {
        scope.spawn(its_client_is_answered_and_the_others_sign_on);
        scope.spawn(a_server_without_a_supervisor_ends);
        scope.spawn(a_server_with_a_watchdog_falls_silent);
        scope.spawn(a_module_that_hangs_when_it_is_initialised_is_no_different);
    });
}

fn its_client_is_answered_and_the_others_sign_on() {
    let (fixture, mut server, key) = steady();
    let stuck = key.clone();
    let began = Instant::now();
    let stuck = hang(&fixture, C_Sign, &[], move || {
        (stuck.sign(), Instant::now())
    });
    let mut slowest = Duration::ZERO;
    while began.elapsed() < 2 * DEADLINE + Duration::from_secs(5) {
        let start = Instant::now();
        key.sign().unwrap();
        slowest = slowest.max(start.elapsed());
        thread::sleep(Duration::from_millis(100));
    }
    let (answer, at) = stuck.join().unwrap();
    let failure = refused(answer, ErrorCode::Timeout);
    assert!(
        failure.message.contains("did not answer in time"),
        "{failure}"
    );
    let after = at - began;
    assert!((29..=33).contains(&after.as_secs()), "after {after:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(server.is_running(), "{}", server.log());
    assert!(server.client().status().available);
    assert_eq!(fixture.faults.count(C_Initialize), 1);
}

fn a_server_without_a_supervisor_ends() {
    let (fixture, mut server, key) = steady();
    let began = Instant::now();
    let stuck = hang(&fixture, C_Sign, &[], move || key.sign());
    refused(stuck.join().unwrap(), ErrorCode::Timeout);
    let status = server.wait(2 * DEADLINE);
    assert!(began.elapsed() >= 2 * DEADLINE, "{:?}", began.elapsed());
    assert!(matches!(status.code(), Some(code) if code != 0), "{status}");
    let said = server.log();
    assert!(said.contains("no PKCS#11 call returns"), "{said}");
    assert!(said.contains("token=device"), "{said}");
}

fn a_server_with_a_watchdog_falls_silent() {
    let fixture = Fixture::new(KeyKind::P256);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let builder = fixture.server().pin(PIN);
    let mut server = builder
        .envs([("NOTIFY_SOCKET", path.as_os_str())])
        .envs([("WATCHDOG_USEC", "3000000")])
        .start();
    let key = server.client().open(KEY).unwrap();
    let began = Instant::now();
    let _stuck = hang(&fixture, C_Sign, &[], move || key.sign());
    let mut last = began;
    let mut message = [0; 512];
    while let Ok(length) = supervisor.recv(&mut message) {
        if message[..length].starts_with(b"WATCHDOG=1") {
            last = Instant::now();
        }
        assert!(began.elapsed() < 3 * DEADLINE, "it is never silent");
    }
    let silent_after = last - began;
    let expected = 2 * DEADLINE - Duration::from_secs(3)..2 * DEADLINE + Duration::from_secs(3);
    assert!(expected.contains(&silent_after), "{silent_after:?}");
    assert!(server.is_running(), "its supervisor decides");
    let trouble = server.client().status().trouble.unwrap();
    assert!(trouble.contains("token=device"), "{trouble}");
}

fn a_module_that_hangs_when_it_is_initialised_is_no_different() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([on(C_Initialize).hangs_forever()]);
    let mut server = fixture.start();
    refused(server.client().open(KEY), ErrorCode::Timeout);
    let status = server.wait(2 * DEADLINE);
    assert!(matches!(status.code(), Some(code) if code != 0), "{status}");
}
