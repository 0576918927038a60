//! How many bytes of requests may be in memory, of one user and of all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of all users together.
const ALL: usize = 16 << 20;

/// Of one user: four of the longest requests.
const PER_USER: usize = 4 << 20;

/// What is shorter does not count: there is a buffer of this size for each connection.
pub(super) const UNCOUNTED: usize = 4096;

/// The bytes of requests that are being received or worked on.
#[derive(Default)]
pub(super) struct Budget {
    of_users: Mutex<HashMap<u32, usize>>,
}

/// A part of it, given back when it is dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    user: u32,
    bytes: usize,
}

impl Budget {
    /// A part for a user, of no bytes yet.
    pub fn share(self: &Arc<Self>, user: u32) -> Share {
        Share {
            budget: self.clone(),
            user,
            bytes: 0,
        }
    }

    fn of_users(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.of_users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes so many bytes in all. False if there are not so many left.
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if bytes <= UNCOUNTED || more == 0 {
            return true;
        }
        let mut of_users = self.budget.of_users();
        let of_all: usize = of_users.values().sum();
        let of_user = of_users.get(&self.user).copied().unwrap_or(0);
        if of_all + more > ALL || of_user + more > PER_USER {
            return false;
        }
        of_users.insert(self.user, of_user + more);
        self.bytes = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Nearly all requests are too short to count.
        if self.bytes == 0 {
            return;
        }
        let mut of_users = self.budget.of_users();
        if let Some(bytes) = of_users.get_mut(&self.user) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                of_users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_some_for_others_and_gets_back_what_it_gave() {
        let budget = Arc::new(Budget::default());
        let mut shares: Vec<_> = (0..4).map(|_| budget.share(1)).collect();
        assert!(shares.iter_mut().all(|share| share.grow_to(1 << 20)));
        assert!(!budget.share(1).grow_to(UNCOUNTED + 1));
        assert!(budget.share(1).grow_to(UNCOUNTED));
        assert!(budget.share(2).grow_to(1 << 20));
        shares.pop();
        assert!(budget.share(1).grow_to(1 << 20));
        drop(shares);
        assert!(budget.of_users().is_empty());
    }

    #[test]
    fn a_share_that_grows_counts_once() {
        let budget = Arc::new(Budget::default());
        let mut share = budget.share(1);
        assert!((1..=1024).all(|count| share.grow_to(count * 4096)));
        assert!(!share.grow_to(PER_USER + 1));
        assert_eq!(*budget.of_users(), HashMap::from([(1, PER_USER)]));
    }

    #[test]
    fn all_together_have_no_more_than_they_may() {
        let budget = Arc::new(Budget::default());
        let mut shares: Vec<_> = (0..4).map(|user| budget.share(user)).collect();
        assert!(shares.iter_mut().all(|share| share.grow_to(PER_USER)));
        assert!(!budget.share(9).grow_to(UNCOUNTED + 1));
    }
}
