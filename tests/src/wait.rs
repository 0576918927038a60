//! Waiting for what should be so soon.

use std::{
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for something that should happen soon: generous, for slow machines.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until it is so; fails if it is not within [`TIMEOUT`].
#[track_caller]
pub fn wait_until(is_so: impl FnMut() -> bool) {
    assert!(is_soon(is_so), "not within {TIMEOUT:?}");
}

/// Waits until somebody listens on a socket, which lies there a moment before.
#[track_caller]
pub fn wait_for_listener(socket: &Path) {
    wait_until(|| UnixStream::connect(socket).is_ok());
}

/// Whether it is so within [`TIMEOUT`].
pub fn is_soon(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + TIMEOUT;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Says that it is over when it is dropped: threads that work until then end also where a test fails.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
