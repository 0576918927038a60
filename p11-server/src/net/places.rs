//! A connection enters and gets a place, if need be that of one that does not use it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::patience::Patience;
use super::watch::Connection;

/// How many connections there may be, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of all users together.
    pub all: usize,
    /// Of one user.
    pub per_user: usize,
    /// How long each may take for its part.
    pub patience: Patience,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            all: 256,
            per_user: 64,
            patience: Patience::default(),
        }
    }
}

/// Who waits for a place looks this often whether somebody has become silent.
const LOOK: Duration = Duration::from_millis(200);

/// The connections that are being served, and those that wait for it: of each kind as many as the
/// limits allow, so that a user who is at work with all of his keeps nobody else from his own.
pub struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
    freed: Condvar,
}

#[derive(Default)]
struct Taken {
    places: HashMap<u64, Arc<Connection>>,
    next: u64,
    /// How many of each user wait.
    waiting: HashMap<u32, usize>,
}

/// A connection that is served or waits for it. Dropped, it makes room.
pub struct Visitor {
    /// The connection.
    pub connection: Arc<Connection>,
    places: Arc<Places>,
    /// `None` while it waits.
    place: Option<u64>,
}

impl Places {
    /// No place is taken yet.
    pub fn new(limits: Limits) -> Arc<Places> {
        Arc::new(Places {
            limits,
            taken: Mutex::default(),
            freed: Condvar::new(),
        })
    }

    /// Lets a connection in, to a place or to the queue for one; `None` where the queue is full too.
    ///
    /// Where the user has no place left, its connection that has been without a complete request the
    /// longest is closed; where nobody has, one of the user that holds most and is not at work with
    /// all.
    pub fn enter(self: &Arc<Self>, connection: Arc<Connection>) -> Option<Visitor> {
        let mut taken = self.lock();
        let place = self.place(&mut taken, &connection);
        if place.is_none() {
            let user = connection.peer.uid;
            let of_user = taken.waiting.get(&user).copied().unwrap_or(0);
            let of_all: usize = taken.waiting.values().sum();
            if of_user >= self.limits.per_user || of_all >= self.limits.all {
                return None;
            }
            taken.waiting.insert(user, of_user + 1);
        }
        Some(Visitor {
            connection,
            places: self.clone(),
            place,
        })
    }

    /// How long each connection may take for its part.
    pub fn patience(&self) -> Patience {
        self.limits.patience
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
                .retain(|_, connection| !connection.close_when_answered());
            let left = taken.places.len();
            let pause = end.saturating_duration_since(Instant::now()).min(LOOK);
            if left == 0 || pause.is_zero() {
                return left;
            }
            taken = self.wait(taken, pause);
        }
    }

    fn place(&self, taken: &mut Taken, connection: &Arc<Connection>) -> Option<u64> {
        let user = connection.peer.uid;
        loop {
            let user_has_room = taken.of(user).count() < self.limits.per_user;
            if user_has_room && taken.places.len() < self.limits.all {
                taken.next += 1;
                taken.places.insert(taken.next, connection.clone());
                return Some(taken.next);
            }
            let has_closed_one = match user_has_room {
                true => taken
                    .richest_first()
                    .into_iter()
                    .any(|user| taken.evict(user)),
                false => taken.evict(user),
            };
            if !has_closed_one {
                return None;
            }
        }
    }

    fn wait<'p>(&self, taken: MutexGuard<'p, Taken>, pause: Duration) -> MutexGuard<'p, Taken> {
        let waited = self.freed.wait_timeout(taken, pause);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn of(&self, user: u32) -> impl Iterator<Item = (u64, &Arc<Connection>)> {
        let places = self.places.iter();
        places
            .filter(move |(_, connection)| connection.peer.uid == user)
            .map(|(number, connection)| (*number, connection))
    }

    fn richest_first(&self) -> Vec<u32> {
        let mut counts = HashMap::<u32, usize>::new();
        for connection in self.places.values() {
            *counts.entry(connection.peer.uid).or_default() += 1;
        }
        let mut users: Vec<_> = counts.into_iter().collect();
        users.sort_unstable_by_key(|(user, count)| (Reverse(*count), *user));
        users.into_iter().map(|(user, _)| user).collect()
    }

    /// Closes the user's connection that has been silent the longest, if there is one.
    fn evict(&mut self, user: u32) -> bool {
        let silent = self.of(user).filter_map(|(number, connection)| {
            let since = connection.silent_since()?;
            Some((since, number))
        });
        let mut silent: Vec<_> = silent.collect();
        silent.sort_unstable();
        // One may have begun to work just now: then the next.
        let closed = silent.into_iter().find(|(_, number)| {
            let connection = self.places.get(number);
            connection.is_some_and(|connection| connection.close_if_silent())
        });
        closed.is_some_and(|(_, number)| self.places.remove(&number).is_some())
    }

    fn stops_waiting(&mut self, user: u32) {
        if let Some(count) = self.waiting.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&user);
            }
        }
    }
}

impl Visitor {
    /// Waits for a place, where it has none yet. False if there was none in time.
    pub fn wait(&mut self) -> bool {
        let give_up = Instant::now() + self.places.limits.patience.turn;
        let mut taken = self.places.lock();
        while self.place.is_none() {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            taken = self.places.wait(taken, left.min(LOOK));
            self.place = self.places.place(&mut taken, &self.connection);
            if self.place.is_some() {
                taken.stops_waiting(self.connection.peer.uid);
            }
        }
        true
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match self.place {
            Some(number) => drop(taken.places.remove(&number)),
            None => taken.stops_waiting(self.connection.peer.uid),
        }
        self.places.freed.notify_all();
    }
}
