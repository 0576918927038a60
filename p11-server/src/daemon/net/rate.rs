//! How often something may happen for each user: so many times at once, and once more after each pause.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Of so many users it is known how often it has happened of late.
const MOST_USERS: usize = 1024;

/// A rate, of each user by itself.
pub(super) struct Rate {
    at_once: u32,
    pause: Duration,
    /// When each user would have all again.
    full: HashMap<u32, Instant>,
}

impl Rate {
    /// So many at once, and one more after each pause.
    pub fn new(at_once: u32, pause: Duration) -> Rate {
        Rate {
            at_once,
            pause,
            full: HashMap::new(),
        }
    }

    /// Whether it may happen now.
    pub fn allows(&self, user: u32) -> bool {
        let now = Instant::now();
        let full = self.full.get(&user).copied().unwrap_or(now);
        full + self.pause <= now + self.pause * self.at_once
    }

    /// It happens once.
    pub fn count(&mut self, user: u32) {
        let now = Instant::now();
        if self.full.len() >= MOST_USERS {
            self.full.retain(|_, full| *full > now);
        }
        let full = self.full.get(&user).copied().unwrap_or(now).max(now);
        self.full.insert(user, full + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_may_happen_at_once_and_one_more_after_each_pause() {
        let mut rate = Rate::new(3, Duration::from_secs(60));
        for _ in 0..3 {
            assert!(rate.allows(1));
            rate.count(1);
        }
        assert!(!rate.allows(1) && rate.allows(2));
        let full = rate.full.get_mut(&1).unwrap();
        *full -= Duration::from_secs(61);
        assert!(rate.allows(1));
        rate.count(1);
        assert!(!rate.allows(1));
    }
}
