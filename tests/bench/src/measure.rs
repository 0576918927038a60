//! Measures candidates in turn, in short rounds, so that whatever else the machine does slows all of them alike.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::signers::Candidate;

impl Figures {
    /// How many times as long as another candidate it took: the median of the rounds, each compared
    /// with the same round of the other, since the machine changes from round to round.
    pub fn times(&self, other: &Figures) -> f64 {
        let pairs = self.rounds.iter().zip(&other.rounds);
        median(pairs.map(|(ours, theirs)| ours / theirs).collect())
    }

    /// One of these and one of those, one after the other.
    pub fn plus(&self, other: &Figures) -> Figures {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Figures {
            rounds: pairs.map(|(one, other)| one + other).collect(),
            ..self.clone()
        }
    }

    /// As a line of text, for another process.
    pub fn to_line(&self) -> String {
        let rounds: Vec<_> = self.rounds.iter().map(f64::to_string).collect();
        let Figures {
            name, p99, rate, ..
        } = self;
        format!("{name}\t{}\t{p99}\t{rate}", rounds.join(" "))
    }

    /// The other end of [`Figures::to_line`].
    pub fn from_line(line: &str) -> Figures {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, rounds, p99, rate] = fields.as_slice() else {
            panic!("{line}");
        };
        let rounds: Vec<f64> = rounds.split(' ').map(|of| of.parse().unwrap()).collect();
        Figures {
            name: name.to_string().leak(),
            median: median(rounds.clone()),
            rounds,
            p99: p99.parse().unwrap(),
            rate: rate.parse().unwrap(),
        }
    }
}

/// How often each candidate has its turn.
const ROUNDS: usize = 31;

/// How long a turn lasts.
const TURN: Duration = Duration::from_millis(150);

/// What one candidate did.
#[derive(Clone)]
pub struct Figures {
    /// Who.
    pub name: &'static str,
    /// The median time of one signature, in microseconds: the median of the rounds' own.
    pub median: f64,
    /// Those of the rounds, in their order.
    pub rounds: Vec<f64>,
    /// The time that 99 of 100 did not exceed, in microseconds.
    pub p99: f64,
    /// Signatures a second, of all clients together: the median of the rounds.
    pub rate: f64,
}

/// Measures candidates with so many clients each.
pub fn latencies(candidates: &[Candidate], clients: usize) -> Vec<Figures> {
    let mut signers: Vec<Vec<_>> = candidates
        .iter()
        .map(|candidate| (0..clients).map(|_| (candidate.open)()).collect())
        .collect();
    // The first calls fill caches everywhere.
    for signer in signers.iter_mut().flatten() {
        (0..50).for_each(|_| signer());
    }
    let mut turns: Vec<Vec<Turn>> = candidates.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (clients, turns) in signers.iter_mut().zip(&mut turns) {
            turns.push(turn(clients));
        }
    }
    candidates
        .iter()
        .zip(turns)
        .map(|(candidate, turns)| figures(candidate.name, &turns))
        .collect()
}

fn figures(name: &'static str, turns: &[Turn]) -> Figures {
    let mut all: Vec<Duration> = turns.iter().flat_map(|turn| turn.times.clone()).collect();
    all.sort();
    let rounds: Vec<f64> = turns.iter().map(Turn::median).collect();
    Figures {
        name,
        median: median(rounds.clone()),
        rounds,
        p99: micros(all[all.len() * 99 / 100]),
        rate: median(turns.iter().map(|turn| turn.rate).collect()),
    }
}

/// What all clients of a candidate did in one turn.
struct Turn {
    times: Vec<Duration>,
    /// Signatures a second together.
    rate: f64,
}

impl Turn {
    fn median(&self) -> f64 {
        median(self.times.iter().copied().map(micros).collect())
    }
}

/// In microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The middle one of some values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One turn: every client signs as fast as it can.
fn turn(clients: &mut [Box<dyn FnMut() + Send>]) -> Turn {
    let start = Barrier::new(clients.len());
    let work = |client: &mut Box<dyn FnMut() + Send>| {
        start.wait();
        let began = Instant::now();
        let mut times = Vec::new();
        let mut last = began;
        while last - began < TURN {
            client();
            let now = Instant::now();
            times.push(now - last);
            last = now;
        }
        (times, last - began)
    };
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| work(client)))
            .collect();
        let done: Vec<_> = running
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        let rate = |(times, took): &(Vec<_>, Duration)| times.len() as f64 / took.as_secs_f64();
        Turn {
            rate: done.iter().map(rate).sum(),
            times: done.into_iter().flat_map(|(times, _)| times).collect(),
        }
    })
}
