//! The log: lines on stderr in the form that the reference page shows, never in the way of a request.
//!
//! A thread of its own writes them. Where they come faster than stderr takes them, lines are dropped
//! rather than waited for.

use std::borrow::Cow;
use std::fmt::Debug;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::thread;
use std::time::Duration;

use tracing::Level;
use tracing::field::Field;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// How long lines are collected while there are many: waking a thread for each costs a signature a third of
/// its time.
const PAUSE: Duration = Duration::from_millis(10);

/// From now on, what is of this level or graver is logged. Lines that wait are written when the guard
/// is dropped.
pub(super) fn init(level: Level) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .thread_name("log")
        .lossy(true)
        .finish(Batches::default());
    tracing_subscriber::fmt()
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(level)
        // A log that cannot be written must not end the process: the error would go to stderr too.
        .log_internal_errors(false)
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .init();
    guard
}

/// Lines that are written to stderr at once, those of a pause together.
#[derive(Default)]
struct Batches(Vec<u8>);

impl Write for Batches {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(line);
        Ok(line.len())
    }

    /// Called when no further line waits. What stderr does not take is lost: there is nobody to tell.
    fn flush(&mut self) -> io::Result<()> {
        let lines = mem::take(&mut self.0);
        let _ = io::stderr().write_all(&lines);
        thread::sleep(PAUSE);
        Ok(())
    }
}

/// What a peer, a label or a URI brings must not look like a line of ours or steer a terminal, so
/// control characters are escaped here, once for all.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{}", escaped(&text)),
        name => write!(writer, "{name}={}", escaped(&text)),
    }
}

/// Nearly no line has a control character: a glance at the bytes has to do.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter.is_control() {
            true => safe.extend(letter.escape_default()),
            false => safe.push(letter),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_end_its_line_or_steer_a_terminal() {
        assert_eq!(escaped("token=a b"), "token=a b");
        assert_eq!(escaped("müller"), "müller");
        assert_eq!(
            escaped("a\nb\u{1b}[2J\u{9b}1m\u{7f}"),
            r"a\nb\u{1b}[2J\u{9b}1m\u{7f}"
        );
    }
}
