//! The program `tedge-p11-server`.

use p11_server::Timeouts;

fn main() {
    p11_server::daemon::run(Timeouts::default())
}
