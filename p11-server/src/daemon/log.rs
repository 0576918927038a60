//! The log: lines on stderr in the form that the reference page shows, never in the way of a request.
//!
//! A thread of its own writes them. Where they come faster than stderr takes them, lines are dropped
//! rather than waited for, and counted.

use std::borrow::Cow;
use std::fmt::Debug;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tracing::Level;
use tracing::field::Field;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The target of log lines as the reference page shows them.
pub(super) const TARGET: &str = "tedge_p11_server";

/// How many lines may wait to be written, and how long each may be, in bytes.
const MOST_LINES: usize = 1024;
const LONGEST_LINE: usize = 4096;

/// How long lines are collected while there are many: waking a thread for each costs a signature a third of
/// its time.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a line may take to be written at the end.
const FLUSH: Duration = Duration::from_millis(2500);

/// The log, as long as the process lives.
pub(super) struct Log {
    guard: WorkerGuard,
    dropped: ErrorCounter,
    lines: Arc<Lines>,
}

/// How many lines there have been, dropped ones too, and how many the thread that writes them is done with.
#[derive(Default)]
struct Lines {
    all: AtomicUsize,
    done: AtomicUsize,
}

/// From now on, what is of this level or graver is logged.
pub(super) fn init(level: Level) -> Log {
    let lines = Arc::<Lines>::default();
    let dropped = Arc::new(OnceLock::new());
    let (writer, guard) = NonBlockingBuilder::default()
        .thread_name("log")
        .buffered_lines_limit(MOST_LINES)
        .lossy(true)
        .finish(Stderr {
            dropped: dropped.clone(),
            lines: lines.clone(),
            told: 0,
            failed: 0,
        });
    let _ = dropped.set(writer.error_counter());
    let log = Log {
        guard,
        dropped: writer.error_counter(),
        lines: lines.clone(),
    };
    tracing_subscriber::fmt()
        .with_writer(move || Line(writer.clone(), lines.clone()))
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(level)
        // A log that cannot be written must not end the process: the error would go to stderr too.
        .log_internal_errors(false)
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .init();
    log
}

impl Log {
    /// Waits for the lines that are not written yet, as long as one after the other is.
    pub fn end(self) {
        // Dropped, the guard would wait for a second in all, and tell of a writer that hangs by a line on stdout,
        // which may hang or panic.
        std::mem::forget(self.guard);
        let all = self.lines.all.load(Ordering::Relaxed);
        let (mut before, mut since) = (0, Instant::now());
        while since.elapsed() < FLUSH {
            let done = self.lines.done.load(Ordering::Acquire);
            if done + self.dropped.dropped_lines() >= all {
                return;
            }
            if done > before {
                (before, since) = (done, Instant::now());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Where lines go: to the thread that writes them.
struct Line(NonBlocking, Arc<Lines>);

impl Write for Line {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.1.all.fetch_add(1, Ordering::Relaxed);
        match line.get(..LONGEST_LINE) {
            // The next line begins where this one is cut.
            Some(start) => self.0.write_all(&[start, b"...\n"].concat())?,
            None => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// stderr, as the thread sees it that writes to it. It tells how many lines are missing before the next one.
struct Stderr {
    dropped: Arc<OnceLock<ErrorCounter>>,
    lines: Arc<Lines>,
    /// How many of those that were dropped have been told of.
    told: usize,
    /// How many could not be written since the last that could.
    failed: usize,
}

impl Write for Stderr {
    /// Takes a whole line. One that cannot be written is no error: what follows may be.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let all = self.dropped.get().map_or(0, ErrorCounter::dropped_lines);
        let lost = (all - self.told).saturating_add(self.failed);
        if lost > 0 && io::stderr().write_all(missing(lost).as_bytes()).is_ok() {
            (self.told, self.failed) = (all, 0);
        }
        if io::stderr().write_all(line).is_err() {
            self.failed += 1;
        }
        self.lines.done.fetch_add(1, Ordering::Release);
        Ok(line.len())
    }

    /// Called when no further line waits.
    fn flush(&mut self) -> io::Result<()> {
        thread::sleep(PAUSE);
        Ok(())
    }
}

fn missing(lines: usize) -> String {
    let mut line = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut line));
    line + &format!(
        "  WARN {TARGET}: {lines} lines of the log were dropped, since stderr did not take them in time\n"
    )
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
