//! The calls that run in the module: which function, on which token, since when, and how long it may take.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p11_proto::message;

use crate::engine::lock::{Mutex, Rank};

/// The table of running calls.
pub(crate) struct Calls(Mutex<Vec<Option<Call>>>);

/// A call that runs.
struct Call {
    function: &'static str,
    place: Option<Place>,
    since: Instant,
    limit: Duration,
}

/// Where a call goes: the number of a slot, and the URI of the token in it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub slot: u64,
    pub name: Arc<str>,
}

/// A call that has not returned within its limit.
#[derive(Clone, Debug)]
pub struct HungCall {
    function: &'static str,
    name: Option<Arc<str>>,
    since: Duration,
    /// Whether it has had twice its limit.
    pub for_good: bool,
}

/// A call's line in the table. Dropped, it has returned.
pub(crate) struct Running<'c> {
    calls: &'c Calls,
    index: usize,
}

impl Calls {
    /// A table without calls.
    pub fn new() -> Calls {
        Calls(Mutex::new(Rank::Calls, Vec::new()))
    }

    /// A call begins, and should take no longer than `limit`.
    pub fn begin(
        &self,
        function: &'static str,
        place: Option<&Place>,
        limit: Duration,
    ) -> Running<'_> {
        let call = Some(Call {
            function,
            place: place.cloned(),
            since: Instant::now(),
            limit,
        });
        let mut calls = self.0.lock();
        let index = match calls.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                calls.push(None);
                calls.len() - 1
            }
        };
        if let Some(line) = calls.get_mut(index) {
            *line = call;
        }
        Running { calls: self, index }
    }

    /// A call that is past its limit, the one for good first.
    pub fn hung(&self) -> Option<HungCall> {
        self.all_hung().into_iter().next()
    }

    /// Those that are, the ones that are the furthest past it first. None is while an earlier one with a longer
    /// limit is within it: modules with one lock for all make the others wait.
    pub fn all_hung(&self) -> Vec<HungCall> {
        let calls = self.0.lock();
        let running = || calls.iter().flatten();
        let excused = |call: &Call| {
            running().any(|other| {
                other.since <= call.since
                    && other.limit > call.limit
                    && other.since.elapsed() <= other.limit
            })
        };
        let hung = running().filter(|call| call.since.elapsed() > call.limit && !excused(call));
        let mut hung: Vec<_> = hung.collect();
        let overdue =
            |call: &&Call| call.since.elapsed().as_millis() * 1000 / call.limit.as_millis().max(1);
        hung.sort_by_cached_key(|call| Reverse(overdue(call)));
        let told = hung.into_iter().map(|call| HungCall {
            function: call.function,
            name: call.place.as_ref().map(|place| place.name.clone()),
            since: call.since.elapsed(),
            for_good: call.since.elapsed() > call.limit * 2,
        });
        told.collect()
    }

    /// Whether a call has run for longer than `time`.
    pub fn any_older_than(&self, time: Duration) -> bool {
        let calls = self.0.lock();
        calls
            .iter()
            .flatten()
            .any(|call| call.since.elapsed() > time)
    }

    /// The function that has run on this slot for longer than `time`.
    pub fn older_on_slot(&self, slot: u64, time: Duration) -> Option<&'static str> {
        let calls = self.0.lock();
        let older = calls.iter().flatten().find(|call| {
            call.since.elapsed() > time && call.place.as_ref().is_some_and(|at| at.slot == slot)
        });
        older.map(|call| call.function)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.calls.0.lock().get_mut(self.index) {
            *line = None;
        }
    }
}

impl HungCall {
    /// As `Status` tells of it.
    pub(crate) fn message(&self) -> message::HungCall {
        let token = self.name.as_deref().map(str::to_owned);
        message::HungCall::new(self.function, self.since.as_secs()).token(token)
    }

    /// Which call it is, in words that stay the same while it hangs.
    pub fn what(&self) -> String {
        let on = self.name.as_deref().unwrap_or("the module itself");
        format!("{} on {on}", self.function)
    }
}

impl std::fmt::Display for HungCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} has not returned for {} s",
            self.what(),
            self.since.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    fn place() -> Place {
        Place {
            slot: 7,
            name: "pkcs11:token=a".into(),
        }
    }

    #[test]
    fn a_call_is_hung_past_its_limit_and_for_good_past_two() {
        let calls = Calls::new();
        let hangs = calls.begin("C_Sign", Some(&place()), LIMIT);
        assert!(calls.hung().is_none());
        std::thread::sleep(LIMIT + LIMIT / 4);
        let hung = calls.hung().unwrap();
        assert!(!hung.for_good);
        assert!(
            hung.to_string()
                .starts_with("C_Sign on pkcs11:token=a has not"),
            "{hung}"
        );
        // That others return says nothing about it.
        drop(calls.begin("C_Sign", Some(&place()), LIMIT));
        std::thread::sleep(LIMIT);
        assert!(calls.hung().unwrap().for_good);
        drop(hangs);
        assert!(calls.hung().is_none());
    }

    #[test]
    fn a_call_behind_an_earlier_longer_one_is_excused() {
        let calls = Calls::new();
        let long = calls.begin("C_GenerateKeyPair", None, LIMIT * 100);
        let _behind = calls.begin("C_Sign", None, LIMIT);
        std::thread::sleep(LIMIT * 3);
        assert!(calls.hung().is_none());
        assert!(calls.any_older_than(LIMIT));
        drop(long);
        assert!(calls.hung().is_some());
    }

    #[test]
    fn a_slot_knows_its_old_calls() {
        let calls = Calls::new();
        let _call = calls.begin("C_GetTokenInfo", Some(&place()), LIMIT);
        assert_eq!(calls.older_on_slot(7, LIMIT), None);
        std::thread::sleep(LIMIT * 2);
        assert_eq!(calls.older_on_slot(7, LIMIT), Some("C_GetTokenInfo"));
        assert_eq!(calls.older_on_slot(8, LIMIT), None);
    }
}
