//! `tedge-p11-server` with an engine that waits seconds for what takes the real one half a minute.

use std::process::ExitCode;
use std::time::Duration;

use p11_server::Timeouts;

fn main() -> ExitCode {
    let mut timeouts = Timeouts::default();
    for (timeout, milliseconds) in [
        (&mut timeouts.request, 2_000),
        (&mut timeouts.long_request, 6_000),
        (&mut timeouts.session, 1_800),
        (&mut timeouts.pin_pad, 4_000),
        (&mut timeouts.slow_slot, 400),
        (&mut timeouts.drain, 500),
        (&mut timeouts.first_pause, 250),
        (&mut timeouts.longest_pause, 3_000),
        (&mut timeouts.quiet, 4_000),
        (&mut timeouts.missing, 4_000),
        (&mut timeouts.unclear, 1_000),
        (&mut timeouts.idle, 1_000),
    ] {
        *timeout = Duration::from_millis(milliseconds);
    }
    p11_server::daemon::run(timeouts)
}
