//! A line with the time that has passed, while a slow token or an absent server is waited for.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::output::say;

/// What takes no longer is not worth a line.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// How often somebody who looks on is told the time.
const TICK: Duration = Duration::from_secs(1);
/// From when on a log has one line of it.
const LOGGED_AFTER: Duration = Duration::from_secs(5);

/// Does something that may take long, for example "the token makes the key".
pub fn during<T>(what: &str, action: impl FnOnce() -> T) -> T {
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || match stderr().is_terminal() {
            true => show(what, &ended),
            false => {
                if ended.recv_timeout(LOGGED_AFTER) == Err(RecvTimeoutError::Timeout) {
                    say(format_args!("{what} ..."));
                }
            }
        });
        let result = action();
        drop(done);
        result
    })
}

fn show(what: &str, ended: &mpsc::Receiver<()>) {
    let began = Instant::now();
    let mut pause = SILENT_FOR;
    let mut shown = false;
    // The line is written over itself, and gone in the end.
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        shown = true;
        pause = TICK;
        let _ = write!(
            stderr(),
            "\r\x1b[K{what}, {} s ...",
            began.elapsed().as_secs()
        );
    }
    if shown {
        let _ = write!(stderr(), "\r\x1b[K");
    }
}
