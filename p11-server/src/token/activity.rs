//! Which calls are inside the module, since when and for which token: what tells a slow one from a stuck one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The name of a token in this table; calls that are about no token yet share `None`.
pub type About = Option<String>;

/// The calls that run now, and when each token last finished one.
#[derive(Default)]
pub struct Activity {
    running: HashMap<u64, Running>,
    finished: HashMap<About, Instant>,
    next: u64,
}

struct Running {
    since: Instant,
    deadline: Duration,
    about: About,
}

impl Activity {
    /// A call begins, which should take no longer than `deadline`. Returns its number.
    pub fn begin(&mut self, deadline: Duration) -> u64 {
        self.next += 1;
        let running = Running {
            since: Instant::now(),
            deadline,
            about: None,
        };
        self.running.insert(self.next, running);
        self.next
    }

    /// The call turns out to be about this token.
    pub fn about(&mut self, call: u64, token: &str) {
        if let Some(running) = self.running.get_mut(&call)
            && running.about.as_deref() != Some(token)
        {
            running.about = Some(token.into());
        }
    }

    /// What the call is about.
    pub fn whereabouts(&self, call: u64) -> About {
        self.running.get(&call)?.about.clone()
    }

    /// The call has returned.
    pub fn end(&mut self, call: u64) {
        if let Some(running) = self.running.remove(&call) {
            self.finished.insert(running.about, Instant::now());
        }
    }

    /// Whether no call runs.
    pub fn is_quiet(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether a call has run for longer than `limit`.
    pub fn has_older_than(&self, limit: Duration) -> bool {
        self.running.values().any(|run| run.since.elapsed() > limit)
    }

    /// The token on which a call has run for two deadlines while none on it finished.
    pub fn stuck(&self) -> Option<&About> {
        let stuck = |run: &&Running| {
            let limit = run.deadline * 2;
            let finished = self.finished.get(&run.about);
            run.since.elapsed() > limit && finished.is_none_or(|at| at.elapsed() > limit)
        };
        self.running.values().find(stuck).map(|run| &run.about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_stuck_when_nothing_on_it_finishes_for_two_deadlines() {
        let deadline = Duration::from_millis(10);
        let mut activity = Activity::default();
        let hangs = activity.begin(deadline);
        activity.about(hangs, "a");
        assert_eq!(activity.stuck(), None, "one deadline is no reason yet");

        std::thread::sleep(deadline * 3);
        let works = activity.begin(deadline);
        activity.about(works, "a");
        activity.end(works);
        assert_eq!(activity.stuck(), None, "others on the token complete");

        std::thread::sleep(deadline * 3);
        assert_eq!(activity.stuck(), Some(&Some("a".into())));
        assert!(activity.has_older_than(deadline));
        activity.end(hangs);
        assert_eq!(activity.stuck(), None);
        assert!(activity.is_quiet());
    }
}
