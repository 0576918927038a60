//! Whose turn it is on a token.
//!
//! A token has two lanes: signatures, as many as it has sessions less one, and slow requests, one at a
//! time in a session set aside for them. In each lane users take turns. A token with room for one session
//! has one turn for both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Condvar;

use crate::engine::lock::{Locked, Mutex, Rank};
use crate::error::Error;

/// Sessions that we open on one token: more callers than that wait for each other.
const MOST_SESSIONS: usize = 9;

/// Signatures of one user that may wait for a token, and searches: all programs of a device, which often run
/// as one user, may open their keys at the same time.
const MOST_QUICK: usize = 64;

/// Listings and changes of one user that may wait for a token.
const MOST_SLOW: usize = 8;

/// How long it is believed that a token has fewer sessions than it says: other programs may have had them.
const LEARNED: Duration = Duration::from_secs(60);

/// How long a wait for a session lasts before it is looked whether one was given back.
const LOOK: Duration = Duration::from_millis(10);

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// One signature.
    Sign,
    /// A search for a key.
    Search,
    /// A listing or a change. Searches of the same user go before.
    Slow,
}

/// The turns on one token.
pub(crate) struct Turns {
    state: Mutex<State>,
    /// A turn has ended, or a session was closed.
    changed: Condvar,
}

struct State {
    /// Sessions that may be open, by the token's own word.
    said: usize,
    /// Fewer, by what it does, until then.
    learned: Option<(usize, Instant)>,
    /// Sessions that are, in all lives of the token since the last reload.
    sessions: usize,
    signing: usize,
    slow: bool,
    /// The lane of signatures is closed for the one who has the slow turn.
    closed: bool,
    waiting: Vec<Waiter>,
    /// When each user was served last, by count.
    served: HashMap<u32, u64>,
    count: u64,
}

struct Waiter {
    number: u64,
    user: u32,
    lane: Lane,
    /// It has the slow turn, which ends when this one is granted.
    is_slow: bool,
    granted: bool,
    wake: Arc<Condvar>,
}

/// A turn. Dropped, the next one begins.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    lane: Lane,
    user: u32,
}

impl Turns {
    /// Turns on a token that allows so many sessions, if it says how many.
    pub fn new(most_sessions: Option<usize>) -> Arc<Turns> {
        let state = State {
            said: limit(most_sessions),
            learned: None,
            sessions: 0,
            signing: 0,
            slow: false,
            closed: false,
            waiting: Vec::new(),
            served: HashMap::new(),
            count: 0,
        };
        Arc::new(Turns {
            state: Mutex::new(Rank::Turns, state),
            changed: Condvar::new(),
        })
    }

    /// Waits for a turn of a user, at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Busy`] where too many requests of this user wait already, [`Error::Timeout`].
    pub fn wait(
        self: &Arc<Self>,
        lane: Lane,
        user: u32,
        deadline: Instant,
        name: &str,
    ) -> Result<Turn, Error> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && state.has_room(lane, false) {
            state.grant(lane, user, false);
        } else {
            state.has_place(lane, user, name)?;
            self.wait_granted(state, (lane, user, false), deadline, name)?;
        }
        let turns = self.clone();
        Ok(Turn { turns, lane, user })
    }

    fn wait_granted(
        &self,
        mut state: Locked<'_, State>,
        (lane, user, is_slow): (Lane, u32, bool),
        deadline: Instant,
        name: &str,
    ) -> Result<(), Error> {
        state.count += 1;
        let (number, wake) = (state.count, Arc::new(Condvar::new()));
        state.waiting.push(Waiter {
            number,
            user,
            lane,
            is_slow,
            granted: false,
            wake: wake.clone(),
        });
        state.grant_next();
        loop {
            let mut waiting = state.waiting.iter();
            let at = waiting.position(|waiter| waiter.number == number);
            let granted = at.is_some_and(|at| state.waiting.get(at).is_some_and(|w| w.granted));
            if granted || Instant::now() >= deadline {
                at.map(|at| state.waiting.swap_remove(at));
                return match granted {
                    true => Ok(()),
                    false => Err(Error::Timeout(format!(
                        "all sessions of the token {name} were in use until the time was up; try again"
                    ))),
                };
            }
            state.wait_until(&wake, deadline);
        }
    }

    /// What the token says of its limit now.
    pub fn set_limit(&self, most_sessions: Option<usize>) {
        self.state.lock().said = limit(most_sessions);
    }

    /// Counts a session that is about to be opened; false where there is no room for it.
    pub fn count_session(&self) -> bool {
        let mut state = self.state.lock();
        let has_room = state.sessions < state.most_sessions();
        state.sessions += usize::from(has_room);
        has_room
    }

    /// Waits a little for a session to be closed or given back. False where `deadline` has passed.
    pub fn wait_for_session(&self, deadline: Instant) -> bool {
        let until = deadline.min(Instant::now() + LOOK);
        self.state.lock().wait_until(&self.changed, until);
        Instant::now() < deadline
    }

    /// A session was closed, or could not be opened. Answers whether it was the last.
    pub fn session_is_closed(&self) -> bool {
        let mut state = self.state.lock();
        state.sessions = state.sessions.saturating_sub(1);
        self.changed.notify_all();
        state.sessions == 0
    }

    /// The token has fewer sessions than it says, or other programs have them: for a while no more than are open
    /// now. False where none is.
    pub fn learn_limit(&self) -> bool {
        let mut state = self.state.lock();
        state.learned = Some((state.sessions.max(1), Instant::now() + LEARNED));
        state.sessions > 0
    }

    /// After a reload no session is open.
    pub fn reset_sessions(&self) {
        self.state.lock().sessions = 0;
        self.changed.notify_all();
    }

    /// Whether signatures and slow requests share the only session.
    pub fn has_one_session(&self) -> bool {
        self.state.lock().most_sessions() == 1
    }
}

impl Turn {
    /// Whether it is one on this token.
    pub fn is_of(&self, turns: &Arc<Turns>) -> bool {
        Arc::ptr_eq(&self.turns, turns)
    }

    /// Makes a slow turn one for another purpose, with nobody in between: while it waits to sign, no change of
    /// the token begins.
    ///
    /// # Errors
    /// [`Error::Timeout`]
    pub fn go_on(mut self, lane: Lane, deadline: Instant, name: &str) -> Result<Turn, Error> {
        if lane == Lane::Sign {
            let turns = self.turns.clone();
            turns.wait_granted(turns.state.lock(), (lane, self.user, true), deadline, name)?;
        }
        self.lane = lane;
        Ok(self)
    }

    /// Closes the lane of signatures until this turn ends, when those that are being made are done.
    ///
    /// # Errors
    /// [`Error::Timeout`]
    pub fn close_signatures(&self, deadline: Instant, name: &str) -> Result<(), Error> {
        let mut state = self.turns.state.lock();
        state.closed = true;
        while state.signing > 0 {
            if !state.wait_until(&self.turns.changed, deadline) && Instant::now() >= deadline {
                return Err(Error::Timeout(format!(
                    "signatures with the token {name} did not end until the time was up; try again"
                )));
            }
        }
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        match self.lane {
            Lane::Sign => state.signing -= 1,
            _ => {
                state.slow = false;
                state.closed = false;
            }
        }
        state.grant_next();
        if state.closed {
            self.turns.changed.notify_all();
        }
    }
}

impl State {
    fn most_sessions(&self) -> usize {
        match self.learned {
            Some((most, until)) if Instant::now() < until => most.min(self.said),
            _ => self.said,
        }
    }

    /// Whether a turn can begin; `is_slow` for one that ends a slow turn.
    fn has_room(&self, lane: Lane, is_slow: bool) -> bool {
        match (self.most_sessions(), lane) {
            (0 | 1, _) => self.signing == 0 && self.slow == is_slow,
            (most, Lane::Sign) => self.signing < most - 1 && !self.closed,
            (_, _) => !self.slow,
        }
    }

    /// Whether one more request of this user may wait.
    fn has_place(&self, lane: Lane, user: u32, name: &str) -> Result<(), Error> {
        let of_user =
            |waiter: &&Waiter| waiter.user == user && waiter.lane == lane && !waiter.granted;
        let most = match lane {
            Lane::Sign | Lane::Search => MOST_QUICK,
            Lane::Slow => MOST_SLOW,
        };
        if self.waiting.iter().filter(of_user).count() >= most {
            let what = match lane {
                Lane::Sign => "signatures",
                Lane::Search => "searches",
                Lane::Slow => "slow requests, such as listings and changes",
            };
            return Err(Error::Busy(format!(
                "{most} {what} of this user wait for the token {name} already; try again"
            )));
        }
        Ok(())
    }

    fn grant(&mut self, lane: Lane, user: u32, is_slow: bool) {
        match lane {
            Lane::Sign => {
                self.signing += 1;
                self.slow &= !is_slow;
            }
            _ => self.slow = true,
        }
        self.count += 1;
        self.served.insert(user, self.count);
        // Users who were served long ago are as good as new.
        if self.served.len() > 1024 {
            let recent = self.count.saturating_sub(1024);
            self.served.retain(|_, served| *served > recent);
        }
    }

    /// Gives every turn that is free to the user who was served the longest ago, and wakes who gets one.
    fn grant_next(&mut self) {
        loop {
            let next = self.waiting.iter().enumerate();
            let next = next.filter(|(_, waiter)| {
                !waiter.granted && self.has_room(waiter.lane, waiter.is_slow)
            });
            let is_shared = self.most_sessions() == 1;
            let next = next.min_by_key(|(_, waiter)| {
                let served = self.served.get(&waiter.user).copied().unwrap_or(0);
                // Where lanes share one session, a user's signatures must not starve the user's searches.
                let lane = (!is_shared).then_some(waiter.lane);
                (served, lane, waiter.number)
            });
            let Some(at) = next.map(|(at, _)| at) else {
                return;
            };
            if let Some(waiter) = self.waiting.get_mut(at) {
                waiter.granted = true;
                waiter.wake.notify_one();
                let (lane, user, is_slow) = (waiter.lane, waiter.user, waiter.is_slow);
                self.grant(lane, user, is_slow);
            }
        }
    }
}

fn limit(most_sessions: Option<usize>) -> usize {
    most_sessions
        .unwrap_or(MOST_SESSIONS)
        .clamp(1, MOST_SESSIONS)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn now() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    /// How many requests wait.
    fn waiting(turns: &Turns) -> usize {
        turns.state.lock().waiting.len()
    }

    #[test]
    fn a_slow_request_does_not_hold_up_signatures() {
        let turns = Turns::new(Some(3));
        let _slow = turns.wait(Lane::Search, 1, now(), "t").unwrap();
        let _first = turns.wait(Lane::Sign, 1, now(), "t").unwrap();
        let second = turns.wait(Lane::Sign, 1, now(), "t").unwrap();
        assert!(matches!(
            turns.wait(Lane::Sign, 1, now(), "t"),
            Err(Error::Timeout(_))
        ));
        drop(second);
        turns.wait(Lane::Sign, 1, now(), "t").unwrap();
        assert!(matches!(
            turns.wait(Lane::Slow, 1, now(), "t"),
            Err(Error::Timeout(_))
        ));
    }

    #[test]
    fn where_lanes_share_one_session_a_users_signatures_do_not_starve_the_users_searches() {
        let turns = Turns::new(Some(1));
        let order = std::sync::Mutex::new(Vec::new());
        thread::scope(|scope| {
            let first = turns.wait(Lane::Sign, 1, soon(), "t").unwrap();
            let wanted = [Lane::Slow, Lane::Search, Lane::Sign, Lane::Sign];
            for (number, lane) in wanted.into_iter().enumerate() {
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    let turn = turns.wait(lane, 1, soon(), "t").unwrap();
                    order.lock().unwrap().push(lane);
                    drop(turn);
                });
                while waiting(turns) <= number {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        let order = order.into_inner().unwrap();
        assert_eq!(order, [Lane::Slow, Lane::Search, Lane::Sign, Lane::Sign]);
    }

    #[test]
    fn one_session_is_for_all() {
        let turns = Turns::new(Some(1));
        let signing = turns.wait(Lane::Sign, 1, now(), "t").unwrap();
        assert!(turns.wait(Lane::Search, 2, now(), "t").is_err());
        drop(signing);
        let _slow = turns.wait(Lane::Search, 2, now(), "t").unwrap();
        assert!(turns.wait(Lane::Sign, 1, now(), "t").is_err());
    }

    #[test]
    fn users_take_turns() {
        let turns = Turns::new(Some(2));
        let order = std::sync::Mutex::new(Vec::new());
        thread::scope(|scope| {
            let first = turns.wait(Lane::Search, 1, soon(), "t").unwrap();
            let mut number = 0;
            for (user, lane) in [
                (1, Lane::Slow),
                (1, Lane::Slow),
                (1, Lane::Search),
                (2, Lane::Search),
                (3, Lane::Slow),
            ] {
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    let turn = turns.wait(lane, user, soon(), "t").unwrap();
                    order.lock().unwrap().push((user, lane));
                    drop(turn);
                });
                number += 1;
                while waiting(turns) < number {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        let order = order.into_inner().unwrap();
        assert_eq!(
            order,
            [
                (2, Lane::Search),
                (3, Lane::Slow),
                (1, Lane::Search),
                (1, Lane::Slow),
                (1, Lane::Slow),
            ]
        );
    }

    #[test]
    fn a_search_keeps_the_slow_turn_until_it_may_sign() {
        let turns = Turns::new(Some(2));
        let signing = turns.wait(Lane::Sign, 2, soon(), "t").unwrap();
        let search = turns.wait(Lane::Search, 1, soon(), "t").unwrap();
        thread::scope(|scope| {
            let signs = scope.spawn(|| search.go_on(Lane::Sign, soon(), "t").unwrap());
            while waiting(&turns) < 1 {
                thread::yield_now();
            }
            assert!(turns.wait(Lane::Slow, 3, now(), "t").is_err());
            drop(signing);
            let signs = signs.join().unwrap();
            let slow = turns.wait(Lane::Slow, 3, now(), "t").unwrap();
            assert!(slow.close_signatures(now(), "t").is_err());
            drop(signs);
            slow.close_signatures(now(), "t").unwrap();
        });
    }

    #[test]
    fn a_search_signs_with_the_only_session_and_gives_it_back() {
        let turns = Turns::new(Some(1));
        let search = turns.wait(Lane::Search, 1, now(), "t").unwrap();
        let signs = search.go_on(Lane::Sign, now(), "t").unwrap();
        assert!(turns.wait(Lane::Slow, 2, now(), "t").is_err());
        drop(signs);
        turns.wait(Lane::Slow, 2, now(), "t").unwrap();
    }

    #[test]
    fn too_many_of_one_user_are_told_so_and_others_wait_on() {
        let turns = Turns::new(Some(2));
        thread::scope(|scope| {
            let slow = turns.wait(Lane::Slow, 1, soon(), "t").unwrap();
            for _ in 0..MOST_SLOW {
                scope.spawn(|| turns.wait(Lane::Slow, 1, soon(), "t").map(drop).unwrap());
            }
            while waiting(&turns) < MOST_SLOW {
                thread::yield_now();
            }
            let refused = turns.wait(Lane::Slow, 1, soon(), "t").err().unwrap();
            assert!(matches!(&refused, Error::Busy(why) if why.contains("8 slow requests")));
            let other = turns.wait(Lane::Search, 2, now(), "t").err().unwrap();
            assert!(matches!(other, Error::Timeout(_)));
            drop(slow);
        });
    }

    #[test]
    fn a_closed_lane_waits_for_signatures_and_opens_again() {
        let turns = Turns::new(Some(3));
        let signing = turns.wait(Lane::Sign, 1, now(), "t").unwrap();
        let slow = turns.wait(Lane::Slow, 1, now(), "t").unwrap();
        assert!(slow.close_signatures(now(), "t").is_err());
        drop(signing);
        slow.close_signatures(now(), "t").unwrap();
        assert!(turns.wait(Lane::Sign, 1, now(), "t").is_err());
        drop(slow);
        turns.wait(Lane::Sign, 1, now(), "t").unwrap();
    }
}
