//! The time of this program, which passes when a test says so: `Instant::now()` of the standard library calls
//! clock_gettime(2), and gets the function of this name that the program has itself. Its harness believes that tests last days.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds since some beginning, a day before that of the test.
static NOW: AtomicU64 = AtomicU64::new(86_400 * SECOND);

const SECOND: u64 = 1_000_000_000;

/// So much time passes.
pub fn pass(time: Duration) {
    NOW.fetch_add(time.as_secs() * SECOND, Ordering::Relaxed);
}

/// Each look at the clock takes a nanosecond, so that what is later is later.
///
/// # Safety
/// As clock_gettime(2): `time` must be valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    if clock != libc::CLOCK_MONOTONIC {
        // SAFETY: the same call, with the same arguments.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    }
    let now = NOW.fetch_add(1, Ordering::Relaxed);
    let now = libc::timespec {
        tv_sec: (now / SECOND) as libc::time_t,
        tv_nsec: (now % SECOND) as libc::c_long,
    };
    // SAFETY: as the caller promises.
    unsafe { time.write(now) };
    0
}
