//! Mutexes whose data stay whole when a thread panics, so that poisoning says nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever a thread that panicked may have left.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
