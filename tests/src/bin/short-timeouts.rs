//! `tedge-p11-server` with an engine that waits seconds for what takes the real one half a minute.

use std::{process::ExitCode, time::Duration};

use p11_server::Timeouts;

fn main() -> ExitCode {
    p11_server::daemon::run(Timeouts {
        request: Duration::from_secs(2),
        session: Duration::from_millis(1800),
        drain: Duration::from_millis(500),
        first_pause: Duration::from_millis(300),
        longest_pause: Duration::from_secs(3),
        quiet: Duration::from_secs(4),
        missing: Duration::from_secs(4),
        idle: Duration::from_secs(1),
        ..Timeouts::default()
    })
}
