//! Hostile clients of every kind beside one that signs: no signature fails, and it takes at most three times as long.

use std::{
    io::Read,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use p11_client::message::{CreateKey, ListKeys, OpenKey};
use p11_fault_module::{
    Function::{self, C_FindObjectsInit, C_GenerateKeyPair},
    on,
};
use p11_proto::{Request, message::Ping};
use p11_tests::{
    as_user::AsUser,
    client::{ClientKey, P256},
    compare::assert_undisturbed,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    proc,
    raw_client::RawClient,
    server::Server,
    verify::verifies,
    wait::wait_until,
};

use super::attacks::{self, Attack};

/// How long a signature takes. It verifies.
fn time_of_signature(key: &ClientKey) -> Duration {
    let (scheme, message) = (key.told().schemes[0], b"a message");
    let began = Instant::now();
    let signature = key.signature(scheme, message).unwrap();
    let took = began.elapsed();
    assert!(verifies(&key.told().spki, scheme, message, &signature));
    took
}

/// Signs beside an attack, and beside clients that send Ping. No signature fails, and others can come and sign.
fn signs_on<A>(server: &Server, attack: impl Fn() -> A) {
    let key = server.client().open(KEY).unwrap();
    let attack = || {
        let attack = attack();
        server.client().open(KEY).unwrap().sign().unwrap();
        attack
    };
    assert_undisturbed(
        || time_of_signature(&key),
        || attacks::pings(server.socket()),
        attack,
        Duration::ZERO,
    );
}

/// One user's clients that connect and say nothing. The server has closed those that are too many.
fn silent(socket: &Path, count: usize) -> Vec<RawClient> {
    let silent: Vec<_> = (0..count).map(|_| RawClient::connect(socket)).collect();
    wait_until(|| kept(&silent) <= 64);
    silent
}

/// How many of these connections the server has not closed.
fn kept(silent: &[RawClient]) -> usize {
    let mut streams = silent.iter().map(|raw| &raw.0);
    let all = streams
        .by_ref()
        .inspect(|stream| stream.set_nonblocking(true).unwrap());
    // A connection that is open has nothing to read, and one that is closed has its end.
    all.filter(|stream| (&mut &**stream).read(&mut [0]).is_err())
        .count()
}

#[test]
fn signatures_stay_quick_while_300_connections_of_one_user_are_silent() {
    let (_fixture, server) = Fixture::started();
    signs_on(&server, || silent(server.socket(), 300));
}

#[test]
fn signatures_stay_quick_while_300_connections_of_two_users_are_silent() {
    let (_fixture, server) = Fixture::started();
    let users = [
        AsUser::new(&server, 4711, 4711),
        AsUser::new(&server, 4712, 4712),
    ];
    signs_on(&server, || {
        users.each_ref().map(|user| silent(user.socket(), 150))
    });
}

/// Hostile clients of one kind, until they are dropped.
const ATTACKS: [fn(&Path) -> Attack; 6] = [
    attacks::requests_byte_by_byte,
    attacks::answers_unread,
    attacks::half_requests,
    attacks::lengths_of_4_gib,
    attacks::truncated_requests,
    attacks::random_bytes,
];

#[test]
fn signatures_stay_quick_under_each_attack() {
    for attack in ATTACKS {
        let (_fixture, server) = Fixture::started();
        signs_on(&server, || attack(server.socket()));
    }
}

#[test]
fn each_user_may_have_64_connections() {
    let (_fixture, server) = Fixture::started();
    let key = server.client().open(KEY).unwrap();
    let users = [
        AsUser::new(&server, 4711, 4711),
        AsUser::new(&server, 4712, 4712),
    ];
    let idle = users.each_ref().map(|user| silent(user.socket(), 100));
    let own = silent(server.socket(), 100);
    assert_eq!(idle.each_ref().map(|idle| kept(idle)), [64, 64]);
    // The one who signs is one of ours.
    key.sign().unwrap();
    wait_until(|| kept(&own) == 63);
}

/// Without a line of the audit for each frame.
fn quiet() -> (Fixture, Server) {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN);
    let server = server.args(["--log-level", "error"]).start();
    (fixture, server)
}

#[test]
fn signatures_stay_quick_while_random_frames_come() {
    let (_fixture, server) = quiet();
    let key = server.client().open(KEY).unwrap();
    assert_undisturbed(
        || time_of_signature(&key),
        || attacks::ping_frames(server.socket()),
        || attacks::random_frames(server.socket(), Arc::default()),
        Duration::ZERO,
    );
}

#[test]
fn random_frames_in_any_number_cost_no_signature() {
    let (_fixture, server) = quiet();
    let key = server.client().open(KEY).unwrap();
    let answered = Arc::<AtomicUsize>::default();
    let attack = attacks::random_frames(server.socket(), answered.clone());
    // Of one user some 200 a second are answered.
    while answered.load(Ordering::Relaxed) < 4_000 {
        assert!(attack.goes_on());
        key.sign().unwrap();
        // The machine's time is for the frames.
        thread::sleep(Duration::from_millis(20));
    }
}

/// Signs while another user sends a request again and again in sixty connections, each of which keeps the token at
/// work in this call.
fn signs_beside(request: Request, slow: Function) {
    let (fixture, server) = Fixture::started();
    let other = AsUser::new(&server, 4711, 4711);
    let key = server.client().open(KEY).unwrap();
    fixture.faults.set([on(slow).delays(30)]);
    assert_undisturbed(
        || time_of_signature(&key),
        || attacks::requests(other.socket(), &Request::Ping(Ping::default())),
        || attacks::requests(other.socket(), &request),
        Duration::ZERO,
    );
}

#[test]
fn signatures_stay_quick_while_another_user_searches_for_nothing() {
    let nothing = OpenKey::new("pkcs11:token=device;object=nothing");
    signs_beside(Request::OpenKey(nothing), C_FindObjectsInit);
}

#[test]
fn signatures_stay_quick_while_another_user_lists_keys() {
    let listing = ListKeys::new("pkcs11:token=device");
    signs_beside(Request::ListKeys(listing), C_FindObjectsInit);
}

#[test]
fn signatures_stay_quick_while_another_user_creates_keys() {
    let creation = CreateKey::new("pkcs11:token=device", P256, "new");
    signs_beside(Request::CreateKey(creation), C_GenerateKeyPair);
}

#[test]
fn all_attacks_at_once_cost_no_signature_and_little_memory() {
    let (_fixture, server, key) = Fixture::steady();
    let attacks = ATTACKS.map(|attack| attack(server.socket()));
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        key.sign().unwrap();
    }
    drop(attacks);
    thread::sleep(Duration::from_millis(100));
    // 64 connections with a thread, a buffer and a frame each are far below this.
    let used = mib(&server, "VmHWM");
    assert!(used < 200, "{used} MiB");
    // One frame of the claimed 4 GiB is above, even if nobody has written to it.
    let reserved = mib(&server, "VmPeak");
    assert!(reserved < 4000, "{reserved} MiB");
    key.sign().unwrap();
}

/// A size of the process's status.
fn mib(server: &Server, name: &str) -> u64 {
    proc::status(server.pid(), name).unwrap() / 1024
}
