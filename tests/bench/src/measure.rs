//! Contenders enter, their figures leave. All are measured in turn, in short rounds, so that whatever
//! else the machine does hits every one of them alike.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::signers::Contender;

impl Figures {
    /// As a line of text, for another process.
    pub fn to_line(&self) -> String {
        let Figures {
            name,
            median,
            p99,
            rate,
        } = self;
        format!("{name}\t{median}\t{p99}\t{rate}")
    }

    /// The other end of [`Figures::to_line`].
    pub fn from_line(line: &str) -> Figures {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, median, p99, rate] = fields.as_slice() else {
            panic!("{line}");
        };
        Figures {
            name: name.to_string().leak(),
            median: median.parse().unwrap(),
            p99: p99.parse().unwrap(),
            rate: rate.parse().unwrap(),
        }
    }
}

/// How often each contender has its turn.
const ROUNDS: usize = 15;

/// How long a turn lasts.
const TURN: Duration = Duration::from_millis(300);

/// What one contender did.
#[derive(Clone)]
pub struct Figures {
    /// Who.
    pub name: &'static str,
    /// The median time of one signature, in microseconds.
    pub median: f64,
    /// The time that 99 of 100 did not exceed, in microseconds.
    pub p99: f64,
    /// Signatures a second, of all clients together: the median of the rounds.
    pub rate: f64,
}

/// Measures contenders with so many clients each.
pub fn latencies(contenders: &[Contender], clients: usize) -> Vec<Figures> {
    let mut signers: Vec<Vec<_>> = contenders
        .iter()
        .map(|contender| (0..clients).map(|_| (contender.open)()).collect())
        .collect();
    // The first calls fill caches everywhere.
    for signer in signers.iter_mut().flatten() {
        (0..50).for_each(|_| signer());
    }
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); contenders.len()];
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (index, clients) in signers.iter_mut().enumerate() {
            let (mut of_turn, rate) = turn(clients);
            times[index].append(&mut of_turn);
            rates[index].push(rate);
        }
    }
    let figures = |index: usize| {
        times[index].sort();
        rates[index].sort_by(f64::total_cmp);
        let at = |share: usize| times[index][times[index].len() * share / 100].as_secs_f64() * 1e6;
        Figures {
            name: contenders[index].name,
            median: at(50),
            p99: at(99),
            rate: rates[index][ROUNDS / 2],
        }
    };
    (0..contenders.len()).map(figures).collect()
}

/// One turn: every client signs as fast as it can. Their times, and signatures a second together.
fn turn(clients: &mut [Box<dyn FnMut() + Send>]) -> (Vec<Duration>, f64) {
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
        let rate = done
            .iter()
            .map(|(times, took)| times.len() as f64 / took.as_secs_f64())
            .sum();
        (
            done.into_iter().flat_map(|(times, _)| times).collect(),
            rate,
        )
    })
}
