//! How often users have brought PINs that are not the right one, and how long theirs are not looked at.
//!
//! The same PIN again is no further miss. From the third miss of a user on a token, PINs of this user are not looked at for
//! 1 s, doubling with each to 15 min. Ten in an hour by users that never had the right one, together, close guessing for those
//! until the hour is over, since a user namespace has many users.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::digests::{Salted, contains, remember};

/// Misses after which a user has to wait.
const FREE_MISSES: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// Misses per token in an hour by users that never had the right PIN.
const STRANGERS_MISSES: usize = 10;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The misses on one token, or on all that have the server's PIN.
#[derive(Default)]
pub(super) struct Misses {
    users: HashMap<u32, UserMisses>,
    /// Who has had the right PIN once.
    matched: HashSet<u32>,
    /// When others have missed, in the last hour.
    strangers: VecDeque<Instant>,
}

struct UserMisses {
    count: u32,
    last: Instant,
    /// With which PINs.
    pins: Vec<Salted>,
    /// Those that were sent to the token.
    sent: Vec<Salted>,
}

impl Misses {
    /// How long PINs of a user are not looked at.
    pub fn wait(&self, user: u32, now: Instant) -> Option<Duration> {
        let own = self.users.get(&user).and_then(|own| {
            let over = own.count.checked_sub(FREE_MISSES)?;
            Some(own.last + doubled(FIRST_WAIT, over))
        });
        let strangers = || {
            let tenth = self.strangers.len().checked_sub(STRANGERS_MISSES)?;
            Some(*self.strangers.get(tenth)? + HOUR)
        };
        let shared = match self.matched.contains(&user) {
            true => None,
            false => strangers(),
        };
        let wait = own.max(shared)?.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Whether a PIN of this user was sent to the token.
    pub fn was_sent(&self, user: u32, pin: &Salted) -> bool {
        let own = self.users.get(&user);
        own.is_some_and(|own| contains(&own.sent, pin))
    }

    /// A PIN of a user was sent to the token, and not accepted.
    pub fn sent(&mut self, user: u32, pin: Salted, now: Instant) {
        remember(&mut self.of(user, now).sent, pin);
    }

    fn of(&mut self, user: u32, now: Instant) -> &mut UserMisses {
        self.users.entry(user).or_insert_with(|| UserMisses {
            count: 0,
            last: now,
            pins: Vec::new(),
            sent: Vec::new(),
        })
    }

    /// A user had the right PIN.
    pub fn matched(&mut self, user: u32) {
        self.users.remove(&user);
        self.matched.insert(user);
    }

    /// Counts a miss, unless the user has missed with the same PIN before.
    pub fn missed(&mut self, user: u32, pin: Salted, now: Instant) -> bool {
        self.users.retain(|_, own| now <= own.last + HOUR);
        self.strangers.retain(|then| now < *then + HOUR);
        let own = self.of(user, now);
        if contains(&own.pins, &pin) {
            return false;
        }
        own.count = own.count.saturating_add(1);
        own.last = now;
        remember(&mut own.pins, pin);
        if !self.matched.contains(&user) {
            self.strangers.push_back(now);
        }
        true
    }
}

/// A time doubled so often, but no longer than the longest wait.
pub(super) fn doubled(time: Duration, times: u32) -> Duration {
    let factor = 2_u32.saturating_pow(times.min(31));
    time.saturating_mul(factor).min(LONGEST_WAIT)
}
