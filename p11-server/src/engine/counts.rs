//! What was done since the start: counted without a lock where a signature passes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use p11_proto::Failure;
use p11_proto::message::{Counters, LastError};

use super::lock::{Mutex, Rank};
use crate::error::Error;

/// What was done, and which request failed last.
pub(crate) struct Counts {
    /// What times are counted from: a clock that is set meanwhile changes none.
    start: Instant,
    signatures: AtomicU64,
    /// When the last one was made, in microseconds since the start.
    signed_at: AtomicU64,
    /// How long it took, in microseconds.
    signing: AtomicU64,
    failures: AtomicU64,
    last_error: Mutex<Option<LastError>>,
}

impl Counts {
    /// Nothing yet.
    pub fn new() -> Counts {
        Counts {
            start: Instant::now(),
            signatures: AtomicU64::new(0),
            signed_at: AtomicU64::new(0),
            signing: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_error: Mutex::new(Rank::LastError, None),
        }
    }

    /// A signature was made whose request came at `began`.
    pub fn signed(&self, began: Instant) {
        let now = Instant::now();
        self.signatures.fetch_add(1, Ordering::Relaxed);
        self.signed_at
            .store(micros(now - self.start), Ordering::Relaxed);
        self.signing.store(micros(now - began), Ordering::Relaxed);
    }

    /// A request has failed.
    pub fn failed(&self, error: &Error) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let failure = Failure::from(error);
        let error = LastError::new(unix(SystemTime::now()), failure.code, failure.message)
            .function(failure.function)
            .ckr(failure.ckr);
        *self.last_error.lock() = Some(error);
    }

    /// The request that failed last.
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().clone()
    }

    /// As `Status` tells of it, with what others count.
    pub fn message(&self, logins: u64, reloads: u64) -> Counters {
        let signatures = self.signatures.load(Ordering::Relaxed);
        let failures = self.failures.load(Ordering::Relaxed);
        let counters = Counters::new(signatures, failures, logins, reloads);
        if signatures == 0 {
            return counters;
        }
        let signed_at = Duration::from_micros(self.signed_at.load(Ordering::Relaxed));
        let ago = self.start.elapsed().saturating_sub(signed_at);
        counters
            .signed_at(SystemTime::now().checked_sub(ago).map(unix))
            .signing_us(self.signing.load(Ordering::Relaxed))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn unix(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
