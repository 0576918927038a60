//! Searches and listings on tokens of many key pairs.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use p11_client::message::{ListKeys, OpenKey};
use p11_client::{Client, Config};

use crate::measure::{median, micros};
use crate::signers::{KEY, Ours};

/// How many key pairs the tokens have.
pub const PAIRS: [usize; 3] = [10, 100, 1_000];

/// How often a listing is measured.
const TIMES: usize = 15;

/// What a search has read serves others for 2 s.
const UNTIL_FORGOTTEN: Duration = Duration::from_millis(2100);

/// What requests took, in milliseconds.
pub struct Searches {
    /// Which.
    pub name: String,
    /// The median.
    pub median: f64,
    /// The slowest.
    pub slowest: f64,
    /// Whether it is to stay under a second.
    pub has_goal: bool,
}

/// The labels of so many key pairs beside the first one.
pub fn labels(pairs: usize) -> impl Iterator<Item = String> {
    (1..pairs).map(|number| format!("pair-{number}"))
}

/// Measures on tokens of so many key pairs each.
pub fn measure(stores: &[PathBuf; PAIRS.len()]) -> Vec<Searches> {
    let servers = stores.each_ref().map(|store| Ours::on_softhsm(store, 0));
    let clients = servers
        .each_ref()
        .map(|ours| Client::new(Config::new(ours.socket())));
    for client in &clients {
        // Which logs in.
        client.open_key(OpenKey::new(KEY)).unwrap();
    }
    let mut times: [Vec<Duration>; PAIRS.len()] = Default::default();
    // Each time another one, since a key that was opened is known.
    for label in labels(PAIRS[0]) {
        thread::sleep(UNTIL_FORGOTTEN);
        for (client, times) in clients.iter().zip(&mut times) {
            times.push(time(|| {
                let uri = format!("pkcs11:token=device;object={label}");
                client.open_key(OpenKey::new(uri)).unwrap();
            }));
        }
    }
    let mut all: Vec<Searches> = PAIRS
        .iter()
        .zip(times)
        .map(|(pairs, times)| summary(format!("OpenKey, {pairs} key pairs"), &times, false))
        .collect();

    let [.., most] = &clients;
    let missing = || {
        let missing = OpenKey::new("pkcs11:token=device;object=missing");
        let error = most.open_key(missing).expect_err("there is no such key");
        assert_eq!(error.code(), "KeyNotFound", "{error}");
    };
    let listing = || {
        let keys = most.list_keys(ListKeys::new("pkcs11:token=device"));
        assert!(keys.unwrap().objects.len() >= PAIRS[2]);
    };
    let requests: [(_, &dyn Fn()); 2] = [("missing key", &missing), ("ListKeys", &listing)];
    for (name, request) in requests {
        let times: Vec<_> = (0..TIMES).map(|_| time(request)).collect();
        all.push(summary(format!("{name}, 1,000 key pairs"), &times, true));
    }
    all
}

fn time(request: impl Fn()) -> Duration {
    let began = Instant::now();
    request();
    began.elapsed()
}

fn summary(name: String, times: &[Duration], has_goal: bool) -> Searches {
    let milliseconds = times.iter().map(|time| micros(*time) / 1e3);
    Searches {
        name,
        median: median(milliseconds.clone().collect()),
        slowest: milliseconds.fold(0.0, f64::max),
        has_goal,
    }
}
