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
        self.wait(self.full_after(user)).is_zero()
    }

    /// It happens once. Answers how long that should take, so that it happens no more often.
    pub fn count(&mut self, user: u32) -> Duration {
        if self.full.len() >= MOST_USERS {
            let now = Instant::now();
            self.full.retain(|_, full| *full > now);
        }
        let full = self.full_after(user);
        self.full.insert(user, full);
        self.wait(full)
    }

    /// When this user would have all again, if it happened once more.
    fn full_after(&self, user: u32) -> Instant {
        let now = Instant::now();
        let full = self.full.get(&user).copied().unwrap_or(now);
        full.max(now) + self.pause
    }

    fn wait(&self, full: Instant) -> Duration {
        full.saturating_duration_since(Instant::now() + self.pause * self.at_once)
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
        assert!(rate.count(2).is_zero());
        let full = rate.full.get_mut(&1).unwrap();
        *full -= Duration::from_secs(61);
        assert!(rate.allows(1));
        rate.count(1);
        assert!(!rate.allows(1));
        let waits = [rate.count(1), rate.count(1)].map(|wait| wait.as_secs_f64().round());
        assert_eq!(waits, [59.0, 119.0]);
    }
}
