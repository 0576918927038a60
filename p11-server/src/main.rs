//! The program `tedge-p11-server`.

use std::process::ExitCode;

use p11_server::Timeouts;

fn main() -> ExitCode {
    p11_server::daemon::run(Timeouts::default())
}
