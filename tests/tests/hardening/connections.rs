//! Hostile clients of every kind beside one that signs: no signature fails, and it takes at most twice as long.

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

use p11_tests::{
    client::ClientKey,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    lenient::{best_tenth, one_good_try_of_ten},
    raw_client::RawClient,
    server::Server,
    wait::wait_until,
};

use super::{
    attacks::{self, Attack},
    users::AsUser,
};

const SIGNATURES: usize = 150;

/// The median of the time that a signature takes. Every one of them is made and verifies.
fn median(key: &ClientKey) -> Duration {
    let mut times: Vec<_> = (0..SIGNATURES)
        .map(|_| {
            let began = Instant::now();
            key.sign().unwrap();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[SIGNATURES / 2]
}

/// Signs before, during and after an attack, and lets others come and sign. No signature fails.
fn signs_on<A>(attack: impl Fn(&Server) -> A) {
    let (_fixture, server) = Fixture::started();
    let key = server.client().open(KEY).unwrap();
    one_good_try_of_ten(|| {
        let before = median(&key);
        let attack = attack(&server);
        let during = median(&key);
        server.client().open(KEY).unwrap().sign().unwrap();
        drop(attack);
        let after = median(&key);
        if during <= 2 * before.max(after) {
            Ok(())
        } else {
            Err(format!(
                "{before:?}, under attack {during:?}, then {after:?}"
            ))
        }
    });
}

/// Clients that connect and say nothing.
fn silent(socket: &Path, count: usize) -> Vec<RawClient> {
    (0..count).map(|_| RawClient::connect(socket)).collect()
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
    signs_on(|server| silent(server.socket(), 300));
}

#[test]
fn signatures_stay_quick_while_300_connections_of_two_users_are_silent() {
    signs_on(|server| {
        let users = [
            AsUser::new(server, 4711, 4711),
            AsUser::new(server, 4712, 4712),
        ];
        let silent = users.each_ref().map(|user| silent(user.socket(), 150));
        (silent, users)
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
        signs_on(|server| attack(server.socket()));
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
    wait_until(|| idle.iter().chain([&own]).all(|idle| kept(idle) <= 64));
    assert_eq!(idle.each_ref().map(|idle| kept(idle)), [64, 64]);
    // The one who signs is one of ours.
    key.sign().unwrap();
    wait_until(|| kept(&own) == 63);
}

#[test]
fn signatures_stay_quick_while_a_million_random_frames_come() {
    let fixture = Fixture::new(KeyKind::P256);
    // Without a million lines of the audit.
    let quiet = fixture.server().pin(PIN).args(["--log-level", "error"]);
    let server = quiet.start();
    let key = server.client().open(KEY).unwrap();
    let before = median(&key);
    let answered = Arc::new(AtomicUsize::new(0));
    let attack = attacks::random_frames(server.socket(), answered.clone());
    let mut during = Vec::new();
    while answered.load(Ordering::Relaxed) < 1_000_000 {
        during.push(median(&key));
    }
    drop(attack);
    let undisturbed = before.max(median(&key));
    let during = best_tenth(during);
    assert!(
        during <= 2 * undisturbed,
        "{during:?}, undisturbed {undisturbed:?}"
    );
}

#[test]
fn all_attacks_at_once_cost_no_signature_and_little_memory() {
    let (_fixture, server) = Fixture::started();
    let key = server.client().open(KEY).unwrap();
    key.sign().unwrap();
    let attacks = ATTACKS.map(|attack| attack(server.socket()));
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        key.sign().unwrap();
    }
    drop(attacks);
    thread::sleep(Duration::from_millis(100));
    // 64 connections with a thread, a buffer and a frame each are far below this.
    let used = peak_mib(&server, "VmHWM:");
    assert!(used < 200, "{used} MiB");
    // One frame of the claimed 4 GiB is above, even if nobody has written to it.
    let reserved = peak_mib(&server, "VmPeak:");
    assert!(reserved < 4000, "{reserved} MiB");
    key.sign().unwrap();
}

/// A line of the process's status (proc(5)).
fn peak_mib(server: &Server, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() / 1024
}
