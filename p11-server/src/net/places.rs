//! A connection enters and gets a place, if need be that of one that does not use it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::watch::Connection;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of all users together.
    pub all: usize,
    /// Of one user.
    pub per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            all: 256,
            per_user: 64,
        }
    }
}

/// How long the newest waits when all others are at work.
const TURN: Duration = Duration::from_secs(5);

/// The connections that are being served.
pub struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
    freed: Condvar,
}

#[derive(Default)]
struct Taken {
    places: HashMap<u64, Arc<Connection>>,
    next: u64,
}

/// The right to be served, given back when dropped.
pub struct Place<'p> {
    places: &'p Places,
    number: u64,
}

impl Places {
    /// No place is taken yet.
    pub fn new(limits: Limits) -> Places {
        Places {
            limits,
            taken: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// Takes a place. Where the user has no more, its connection that has been without a complete
    /// request the longest is closed; where nobody has, one of the user that holds most. If all of
    /// those are at work, the newest waits a while, and is then refused with `None`.
    pub fn take(&self, connection: &Arc<Connection>) -> Option<Place<'_>> {
        let give_up = Instant::now() + TURN;
        let user = connection.peer.uid;
        let mut taken = self.lock();
        loop {
            let of_user = taken.of(user).count();
            if of_user < self.limits.per_user && taken.places.len() < self.limits.all {
                taken.next += 1;
                let number = taken.next;
                taken.places.insert(number, connection.clone());
                return Some(Place {
                    places: self,
                    number,
                });
            }
            let richest = match of_user < self.limits.per_user {
                true => taken.richest(),
                false => Some(user),
            };
            if richest.is_some_and(|user| taken.evict(user)) {
                continue;
            }
            let wait = give_up.checked_duration_since(Instant::now())?;
            let waited = self.freed.wait_timeout(taken, wait);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many places are taken.
    pub fn count(&self) -> usize {
        self.lock().places.len()
    }

    /// Answers for every operation that is overdue and frees its place.
    pub fn close_overdue(&self) {
        let mut taken = self.lock();
        let before = taken.places.len();
        taken
            .places
            .retain(|_, connection| !connection.close_if_overdue());
        if taken.places.len() < before {
            self.freed.notify_all();
        }
    }

    /// Closes every connection that is not at work, and waits until the others are done, or until
    /// `grace` is over. Answers how many are left.
    pub fn drain(&self, grace: Duration) -> usize {
        let end = Instant::now() + grace;
        let mut taken = self.lock();
        loop {
            taken
                .places
                .retain(|_, connection| !connection.close_if_idle());
            let left = taken.places.len();
            let pause = end
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(50));
            if left == 0 || pause.is_zero() {
                return left;
            }
            let waited = self.freed.wait_timeout(taken, pause);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn of(&self, user: u32) -> impl Iterator<Item = (&u64, &Arc<Connection>)> {
        self.places
            .iter()
            .filter(move |(_, connection)| connection.peer.uid == user)
    }

    fn richest(&self) -> Option<u32> {
        let users = self.places.values().map(|connection| connection.peer.uid);
        users.max_by_key(|user| self.of(*user).count())
    }

    /// Closes the user's connection that has been silent the longest, if there is one.
    fn evict(&mut self, user: u32) -> bool {
        loop {
            let silent = self.of(user).filter(|(_, connection)| connection.is_idle());
            let Some((number, connection)) = silent.min_by_key(|(_, c)| c.heard()) else {
                return false;
            };
            // It may have begun to work just now.
            if connection.close_if_idle() {
                let number = *number;
                self.places.remove(&number);
                return true;
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.places.lock().places.remove(&self.number);
        self.places.freed.notify_all();
    }
}
