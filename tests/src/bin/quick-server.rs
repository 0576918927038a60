//! `tedge-p11-server` whose engine waits a tenth as long as usual, for tests that see a deadline pass.

use std::process::ExitCode;
use std::time::Duration;

use p11_server::Timeouts;

fn main() -> ExitCode {
    let mut timeouts = Timeouts::default();
    for timeout in [
        &mut timeouts.request,
        &mut timeouts.session,
        &mut timeouts.change,
        &mut timeouts.drain,
        &mut timeouts.quiet,
        &mut timeouts.missing,
        &mut timeouts.idle,
        &mut timeouts.longest_pause,
    ] {
        *timeout /= 10;
    }
    timeouts.long_request = Duration::from_secs(60);
    p11_server::daemon::run(timeouts)
}
