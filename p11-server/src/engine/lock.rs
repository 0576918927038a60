//! The locks of the engine, and the order in which they may be taken.
//!
//! A thread takes locks in the order of [`Rank`] only; a debug build panics where one is taken under a
//! higher one. No module call is made under a lock but those that say so.

#[cfg(debug_assertions)]
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

use parking_lot::{Condvar, MutexGuard};

/// Every lock of the engine, the one that is taken first on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Initialising a token, so that the next one finds it made. Held during module calls.
    InitToken,
    /// Who may send PINs to a token, or to those of one TPM, one at a time. Held during `C_Login`.
    Login,
    /// A module that must be called from one thread at a time. Held during its calls.
    Serial,
    /// The tokens that are known, and the scan of the slots.
    Registry,
    /// Whose turn it is on a token.
    Turns,
    /// What is open on a token.
    Token,
    /// One life of a token.
    Life,
    /// What was read of tokens.
    Contents,
    /// Keys that were found.
    Keys,
    /// One of these keys.
    Key,
    /// The operator's settings.
    Settings,
    /// Refused PINs.
    Pins,
    /// PINs that were changed through us.
    Replaced,
    /// Who may send PINs to which token.
    Sending,
    /// The request that failed last.
    LastError,
    /// Whether the module is up, and who is inside.
    Module,
    /// The calls that run.
    Calls,
}

/// A mutex with its place in the order. A thread that panics leaves it open: every critical section
/// leaves its data whole.
pub(crate) struct Mutex<T> {
    rank: Rank,
    inner: parking_lot::Mutex<T>,
}

/// The data of a mutex that is locked.
pub(crate) struct Locked<'m, T> {
    guard: MutexGuard<'m, T>,
    held: Held,
}

impl<T> Mutex<T> {
    /// An open mutex.
    pub const fn new(rank: Rank, value: T) -> Mutex<T> {
        Mutex {
            rank,
            inner: parking_lot::Mutex::new(value),
        }
    }

    /// Locks, for as long as it takes.
    pub fn lock(&self) -> Locked<'_, T> {
        let held = Held::new(self.rank);
        let guard = self.inner.lock();
        Locked { guard, held }
    }

    /// Locks if that is possible until `deadline`.
    pub fn lock_until(&self, deadline: Instant) -> Option<Locked<'_, T>> {
        let held = Held::new(self.rank);
        let guard = self.inner.try_lock_until(deadline)?;
        Some(Locked { guard, held })
    }
}

impl<T> Locked<'_, T> {
    /// Opens the mutex and waits to be notified, at most until `deadline`. False where that has passed.
    pub fn wait_until(&mut self, changed: &Condvar, deadline: Instant) -> bool {
        self.held.assert_last();
        !changed.wait_until(&mut self.guard, deadline).timed_out()
    }
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A lock that this thread holds, in debug builds.
struct Held {
    #[cfg(debug_assertions)]
    rank: Rank,
}

#[cfg(debug_assertions)]
thread_local! {
    /// The locks that this thread holds.
    static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
}

#[cfg(debug_assertions)]
impl Held {
    #[allow(
        clippy::panic,
        reason = "a lock out of order is a defect that tests must see"
    )]
    fn new(rank: Rank) -> Held {
        HELD.with_borrow_mut(|held| {
            if let Some(last) = held.iter().max()
                && *last >= rank
            {
                panic!("the lock {rank:?} is taken under {last:?}");
            }
            held.push(rank);
        });
        Held { rank }
    }

    /// A thread that waits holds no lock that others need to go on.
    fn assert_last(&self) {
        HELD.with_borrow(|held| {
            let may_wait =
                |rank: &Rank| *rank == self.rank || matches!(rank, Rank::InitToken | Rank::Login);
            debug_assert!(held.iter().all(may_wait), "waits under {held:?}");
        });
    }
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| held.retain(|rank| *rank != self.rank));
    }
}

#[cfg(not(debug_assertions))]
impl Held {
    fn new(_: Rank) -> Held {
        Held {}
    }

    fn assert_last(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the lock Token is taken under Keys")]
    fn a_lock_out_of_order_is_a_panic() {
        let (token, keys) = (Mutex::new(Rank::Token, ()), Mutex::new(Rank::Keys, ()));
        let _keys = keys.lock();
        let _token = token.lock();
    }

    #[test]
    fn locks_in_order_are_taken_and_given_back() {
        let (token, keys) = (Mutex::new(Rank::Token, 1), Mutex::new(Rank::Keys, 2));
        for _ in 0..2 {
            let mut token = token.lock();
            *token += *keys.lock();
        }
        assert_eq!(*token.lock(), 5);
    }
}
