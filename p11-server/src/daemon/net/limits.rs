//! How many connections are served and wait, shared fairly among users.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use p11_proto::frame::{self, Body};
use p11_proto::{ErrorCode, Failure, Response};

use super::connection::Connection;
use super::rate::Rate;
use super::timeouts::IoTimeouts;

/// How many connections there may be, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// Of all users together.
    pub all: usize,
    /// Of one user.
    pub per_user: usize,
    /// Beside all of these, for users who have none.
    pub reserve: usize,
    /// How long each may take for its part.
    pub timeouts: IoTimeouts,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            all: 256,
            per_user: 64,
            reserve: 256,
            timeouts: IoTimeouts::default(),
        }
    }
}

/// Who waits for a place looks this often whether somebody has become silent.
const LOOK: Duration = Duration::from_millis(200);

/// How often one user's new connections may close old ones: so many at once, and one more after each pause. A
/// user whose connections come faster is told that there is no place, which costs far less than a change.
const CHANGES: u32 = 128;
const CHANGE_PAUSE: Duration = Duration::from_millis(5);

/// How many connections a user may leave with answers untaken, and after which pause one more. What is in a
/// socket counts as memory of the server for as long as the client keeps its end open.
const UNTAKEN: u32 = 512;
const UNTAKEN_PAUSE: Duration = Duration::from_millis(250);

/// Why a connection is refused.
pub(super) const NO_PLACE: &str = "all connections of the server are at work; try again";
const LEFT_UNTAKEN: &str = "too many connections of this user were left with answers that nobody took; take them, or close \
                            both ends";

/// Tells that all places are taken.
pub(super) fn no_place() -> Failure {
    Failure::new(ErrorCode::Busy, NO_PLACE)
}

/// The connections that are being served, and those that wait for it: of each kind as many as the
/// limits allow, so that a user who is at work with all of his keeps nobody else from his own.
pub(crate) struct Limiter {
    limits: ConnectionLimits,
    /// What is sent to who has to make room before the first request.
    busy: Body,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    served: HashMap<u64, Arc<Connection>>,
    next: u64,
    /// How many of each user wait.
    waiting: HashMap<u32, usize>,
    /// How often new connections of each user have closed others.
    changes: Rate,
    /// How often each user has left answers untaken.
    untaken: Rate,
}

/// A connection that is served or waits for it. Dropped, it makes room.
pub(crate) struct Permit {
    /// The connection.
    pub connection: Arc<Connection>,
    limiter: Arc<Limiter>,
    /// `None` while it waits.
    place: Option<u64>,
    /// Until when it may wait.
    deadline: Instant,
}

impl Limiter {
    /// Nobody is served yet.
    pub fn new(limits: ConnectionLimits) -> Arc<Limiter> {
        Arc::new(Limiter {
            limits,
            busy: frame::encode(&Response::Error(no_place())).unwrap_or_default(),
            state: Mutex::new(State {
                served: HashMap::new(),
                next: 0,
                waiting: HashMap::new(),
                changes: Rate::new(CHANGES, CHANGE_PAUSE),
                untaken: Rate::new(UNTAKEN, UNTAKEN_PAUSE),
            }),
            freed: Condvar::new(),
        })
    }

    /// Lets a connection in, to a place or to the queue for one.
    ///
    /// Where the user has no place left, its connection that has been without a complete request the
    /// longest is closed; where nobody has, one of the user that holds most and is not at work with
    /// all. Where all are at work, who has none gets one of the reserve.
    ///
    /// # Errors
    /// Why it is refused: the queue is full too, or the user has left too many answers untaken.
    pub fn admit(self: &Arc<Self>, connection: Arc<Connection>) -> Result<Permit, &'static str> {
        let mut state = self.lock();
        if !state.untaken.allows(connection.peer.uid) {
            return Err(LEFT_UNTAKEN);
        }
        let place = self.place(&mut state, &connection);
        if place.is_none() {
            let user = connection.peer.uid;
            let of_user = state.waiting.get(&user).copied().unwrap_or(0);
            let of_all: usize = state.waiting.values().sum();
            if of_user >= self.limits.per_user || of_all >= self.limits.all {
                return Err(NO_PLACE);
            }
            state.waiting.insert(user, of_user + 1);
        }
        Ok(Permit {
            connection,
            limiter: self.clone(),
            place,
            deadline: Instant::now() + self.limits.timeouts.queue,
        })
    }

    /// A connection of this user has ended with answers that were not taken.
    pub fn count_untaken(&self, user: u32) {
        self.lock().untaken.count(user);
    }

    /// How long each connection may take for its part.
    pub fn timeouts(&self) -> IoTimeouts {
        self.limits.timeouts
    }

    /// How many connections are served.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lock().served.len()
    }

    /// Answers for every operation that is overdue and frees its place.
    pub fn close_overdue(&self) {
        let mut state = self.lock();
        let before = state.served.len();
        state
            .served
            .retain(|_, connection| !connection.close_if_overdue());
        if state.served.len() < before {
            self.freed.notify_all();
        }
    }

    /// Closes every connection that is not at work, and waits until the others are done, or until
    /// `grace` is over. Answers how many are left.
    pub fn drain(&self, grace: Duration) -> usize {
        let end = Instant::now() + grace;
        let mut state = self.lock();
        loop {
            state
                .served
                .retain(|_, connection| !connection.close_when_answered());
            let left = state.served.len();
            let pause = end.saturating_duration_since(Instant::now()).min(LOOK);
            if left == 0 || pause.is_zero() {
                return left;
            }
            state = self.wait(state, pause);
        }
    }

    fn place(&self, state: &mut State, connection: &Arc<Connection>) -> Option<u64> {
        let user = connection.peer.uid;
        let own = state.of(user).count();
        let user_has_room = own < self.limits.per_user;
        if user_has_room && state.served.len() < self.limits.all {
            return Some(state.seat(connection));
        }
        let may_change = state.changes.allows(user);
        if may_change {
            state.changes.count(user);
        }
        // Nobody takes from who has no more, and who has none takes no only one while there is a reserve.
        let has_closed_one = may_change
            && match user_has_room {
                true => state.evict_from_others(user, own.max(1), &self.busy),
                false => state.evict(user, &self.busy),
            };
        let has_place = has_closed_one
            || own == 0
                && (state.served.len() < self.limits.all + self.limits.reserve
                    || may_change && state.evict_from_others(user, 0, &self.busy));
        has_place.then(|| state.seat(connection))
    }

    fn wait<'p>(&self, state: MutexGuard<'p, State>, pause: Duration) -> MutexGuard<'p, State> {
        let waited = self.freed.wait_timeout(state, pause);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn seat(&mut self, connection: &Arc<Connection>) -> u64 {
        self.next += 1;
        self.served.insert(self.next, connection.clone());
        self.next
    }

    fn of(&self, user: u32) -> impl Iterator<Item = (u64, &Arc<Connection>)> {
        self.served
            .iter()
            .filter(move |(_, connection)| connection.peer.uid == user)
            .map(|(number, connection)| (*number, connection))
    }

    /// Closes a silent connection of a user who has more than so many, or of this one: of who has most first.
    fn evict_from_others(&mut self, user: u32, more_than: usize, busy: &[u8]) -> bool {
        let mut counts = HashMap::<u32, usize>::new();
        for connection in self.served.values() {
            *counts.entry(connection.peer.uid).or_default() += 1;
        }
        let mut users: Vec<_> = counts.into_iter().collect();
        users.retain(|(other, count)| *count > more_than || *other == user);
        users.sort_unstable_by_key(|(other, count)| (Reverse(*count), *other));
        users.into_iter().any(|(other, _)| self.evict(other, busy))
    }

    /// Closes the user's connection that has been silent the longest, if there is one.
    fn evict(&mut self, user: u32, busy: &[u8]) -> bool {
        let silent = self.of(user).filter_map(|(number, connection)| {
            let since = connection.silent_since()?;
            Some((since, number))
        });
        let mut silent: Vec<_> = silent.collect();
        silent.sort_unstable();
        // One may have begun to work just now: then the next.
        let closed = silent.into_iter().find(|(_, number)| {
            let connection = self.served.get(number);
            connection.is_some_and(|connection| connection.close_if_silent(busy))
        });
        closed.is_some_and(|(_, number)| self.served.remove(&number).is_some())
    }

    fn stop_waiting(&mut self, user: u32) {
        if let Some(count) = self.waiting.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&user);
            }
        }
    }
}

impl Permit {
    /// Whether it has a place.
    pub fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// How long it may still wait.
    pub fn queue_timeout(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits for a place, where it has none yet. False if there was none in time.
    pub fn wait(&mut self) -> bool {
        if self.has_place() {
            return true;
        }
        let mut state = self.limiter.lock();
        while self.place.is_none() {
            self.place = self.limiter.place(&mut state, &self.connection);
            if self.place.is_some() {
                state.stop_waiting(self.connection.peer.uid);
                break;
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.limiter.wait(state, left.min(LOOK));
        }
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        match self.place {
            Some(number) => drop(state.served.remove(&number)),
            None => state.stop_waiting(self.connection.peer.uid),
        }
        self.limiter.freed.notify_all();
    }
}
