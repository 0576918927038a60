//! Events enter, lines on stderr leave, in the form that the reference page shows.
//!
//! What a peer, a label or a URI brings must not look like a line of ours or steer a terminal, so
//! control characters are escaped here, once for all. Nearly no line has any, and most lines are the
//! audit's, one a signature: a glance at the bytes has to do.

use std::borrow::Cow;
use std::fmt::Debug;
use std::io::{self, IsTerminal};

use tracing::Level;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// From now on, what is of this level or graver is logged.
pub fn init(level: Level) {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(level)
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .init();
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{}", escaped(&text)),
        name => write!(writer, "{name}={}", escaped(&text)),
    }
}

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
