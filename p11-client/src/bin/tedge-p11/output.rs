//! What is printed where: the thing that was asked for on stdout, words on stderr.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::json;

use crate::exit::Refusal;

/// `ok` in front of a line.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// `NOT OK` and `error` in front of a line.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// How the user wants to be told.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
    pub verbose: bool,
}

impl Output {
    /// The answer: as JSON on one line, or else what `text` writes.
    pub fn answer(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Refusal> {
        let line = match self.json {
            true => serde_json::to_string(value).map_err(Refusal::failed)?,
            false => text(),
        };
        print(line.trim_end_matches('\n'))
    }

    /// Why there is no answer, or not all of it.
    pub fn refusal(self, refusal: &Refusal) {
        if self.json {
            let error = json!({"error": {
                "code": refusal.code,
                "message": refusal.message,
                "exit": refusal.exit as u8,
                "next": refusal.next,
            }});
            // A second failure would hide the first.
            let _ = print(&error.to_string());
        }
        say(format_args!("{BAD}error:{BAD:#} {}", refusal.message));
        for command in &refusal.next {
            say(format_args!("  {command}"));
        }
    }
}

/// Where the thing itself goes: to stdout, or into a file that is not there yet.
pub struct Place(Option<PathBuf>);

impl Place {
    /// The file of `--out`; `-` is stdout.
    pub fn new(out: Option<&Path>) -> Result<Place, Refusal> {
        match out.filter(|out| *out != Path::new("-")) {
            Some(out) if out.exists() => Err(Refusal::usage(format_args!(
                "{out:?} is there already, and is not overwritten"
            ))),
            out => Ok(Place(out.map(Path::to_owned))),
        }
    }

    pub fn file(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// Puts it there, and the answer in JSON on stdout where that was asked for.
    pub fn put(
        &self,
        output: Output,
        answer: &impl Serialize,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        if let Some(file) = &self.0 {
            let written = File::create_new(file).and_then(|mut file| file.write_all(bytes));
            written.map_err(|e| Refusal::failed(format_args!("{file:?}: {e}")))?;
        } else if !output.json {
            return write(&mut io::stdout(), bytes);
        }
        output.answer(answer, String::new)
    }
}

/// Lines on stdout.
pub fn print_text(text: &str) -> Result<(), Refusal> {
    print(text.trim_end_matches('\n'))
}

/// A line on stdout, or none where there is nothing to print.
fn print(text: &str) -> Result<(), Refusal> {
    if text.is_empty() {
        return Ok(());
    }
    write(&mut anstream::stdout(), format!("{text}\n").as_bytes())
}

/// Bytes that are no text, for a file or a pipe.
pub fn print_raw(bytes: &[u8]) -> Result<(), Refusal> {
    write(&mut io::stdout(), bytes)
}

/// A line for people on stderr. Nothing is wrong where nobody reads it.
pub fn say(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Whoever has read enough of it ends the program quietly.
fn write(out: &mut impl Write, bytes: &[u8]) -> Result<(), Refusal> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => process::exit(0),
        written => written.map_err(|e| Refusal::failed(format_args!("stdout: {e}"))),
    }
}

/// What a token or certificate says, without what drives a terminal or turns around what is read.
pub fn printable(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escaped = |c: char| match c.is_control() || turns(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// Columns, each as wide as its widest value. The last one is as long as it is.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).filter(|(_, width)| **width > 0);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let text = table(&[row(["ä", "", "x"]), row(["long", "", ""])]);
        assert_eq!(text, "ä     x\nlong\n");
    }

    #[test]
    fn nothing_that_a_token_says_drives_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}ü"), "a\\u{1b}[2Jb\\u{202e}ü");
    }
}
