//! The calls that run in the module, since when and for which token: what tells a slow one from a stuck one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The name of a token in this table; calls that are about no token yet share `None`.
pub(super) type TokenName = Option<String>;

/// The calls that run now, and when each token last finished one.
#[derive(Default)]
pub(super) struct Activity {
    running: HashMap<u64, Running>,
    finished: HashMap<TokenName, Instant>,
    next: u64,
}

struct Running {
    since: Instant,
    deadline: Duration,
    token: TokenName,
}

impl Activity {
    /// A call begins, which should take no longer than `deadline`. Returns its number.
    pub fn begin(&mut self, deadline: Duration) -> u64 {
        self.next += 1;
        let running = Running {
            since: Instant::now(),
            deadline,
            token: None,
        };
        self.running.insert(self.next, running);
        self.next
    }

    /// The call turns out to be about this token.
    pub fn set_token(&mut self, call: u64, token: &str) {
        if let Some(running) = self.running.get_mut(&call)
            && running.token.as_deref() != Some(token)
        {
            running.token = Some(token.into());
        }
    }

    /// What the call is about.
    pub fn token(&self, call: u64) -> TokenName {
        self.running.get(&call)?.token.clone()
    }

    /// The call has returned.
    pub fn end(&mut self, call: u64) {
        if let Some(running) = self.running.remove(&call) {
            self.finished.insert(running.token, Instant::now());
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
    pub fn stuck(&self) -> Option<&TokenName> {
        let stuck = |run: &&Running| {
            let limit = run.deadline * 2;
            let finished = self.finished.get(&run.token);
            run.since.elapsed() > limit && finished.is_none_or(|at| at.elapsed() > limit)
        };
        self.running.values().find(stuck).map(|run| &run.token)
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
        activity.set_token(hangs, "a");
        assert_eq!(activity.stuck(), None, "one deadline is no reason yet");

        std::thread::sleep(deadline * 3);
        let works = activity.begin(deadline);
        activity.set_token(works, "a");
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
