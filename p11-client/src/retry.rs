//! When a request is sent once more: the pauses between tries, and until when.

use std::hash::{BuildHasher, RandomState};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::socket::Deadline;

/// Between the first try and the second. Each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Who closes so many new connections in a row without an answer is no server that restarts.
const MOST_CLOSED: u32 = 8;
/// Whoever waits longer is told for what: it may be a whole program that stands still meanwhile.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// The tries of one request.
pub(crate) struct Retries {
    deadline: Deadline,
    /// For how long a server that is not there is looked for.
    retry_for: Duration,
    first_loss: Option<Instant>,
    /// For how long one that is busy is asked again.
    busy_for: Duration,
    began: Instant,
    pause: Duration,
    told: bool,
    closed: u32,
    busy: Option<Error>,
}

impl Retries {
    pub(crate) fn new(deadline: Deadline, retry_for: Duration, busy_for: Duration) -> Self {
        Retries {
            deadline,
            retry_for,
            first_loss: None,
            busy_for,
            began: Instant::now(),
            pause: FIRST_PAUSE,
            told: false,
            closed: 0,
            busy: None,
        }
    }

    /// Waits until it is time for the next try after this error.
    ///
    /// # Errors
    /// The error, if there is no next try.
    pub(crate) fn wait_after(&mut self, error: Error) -> Result<(), Error> {
        self.closed = match error {
            Error::ConnectionLost(_) => self.closed + 1,
            _ => 0,
        };
        let left = if self.closed >= MOST_CLOSED {
            Duration::ZERO
        } else if error.is_lost_server() {
            let first_loss = *self.first_loss.get_or_insert_with(Instant::now);
            self.retry_for.saturating_sub(first_loss.elapsed())
        } else if error.is_busy() {
            self.busy_for.saturating_sub(self.began.elapsed())
        } else {
            // Of a time that ran out while others were served it is told what they were waited for.
            return Err(match (&error, self.busy.take()) {
                (Error::Deadline { .. }, Some(busy)) => busy,
                _ => error,
            });
        };
        let pause = jittered(self.pause).min(left);
        if pause.is_zero() || !self.deadline.allows(pause) {
            return Err(error);
        }
        if self.began.elapsed() >= SILENT_FOR && !self.told {
            self.told = true;
            let waited = self.began.elapsed();
            tracing::warn!("no answer for {waited:.1?}, and still trying: {error}");
        } else {
            tracing::debug!("trying again in {pause:?}: {error}");
        }
        self.busy = error.is_busy().then_some(error);
        thread::sleep(pause);
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Half of the pause to all of it: many clients that were turned away together do not come back together.
fn jittered(pause: Duration) -> Duration {
    // The keys of RandomState are one process's own, and those of its forks.
    let random = RandomState::new().hash_one((process::id(), Instant::now()));
    pause / 2 + (pause / 2).mul_f64((random % 1024) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_stay_in_their_half() {
        let pauses: Vec<_> = (0..50).map(|_| jittered(LONGEST_PAUSE)).collect();
        let half = LONGEST_PAUSE / 2..=LONGEST_PAUSE;
        assert!(pauses.iter().all(|pause| half.contains(pause)));
        assert!(pauses.iter().any(|pause| pause != &pauses[0]));
    }
}
