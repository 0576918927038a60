//! How the walk is told: a line for each step, the failure in full; or JSON.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::finding::{Finding, Outcome};
use crate::exit::{Exit, Refusal};
use crate::output::{BAD, GOOD, Output, printable};

const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Where the words begin.
const INDENT: usize = 16;

/// See docs/check.md.
#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    exit: u8,
    steps: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    step: &'a str,
    result: Outcome,
    found: &'a str,
    warnings: &'a [String],
    details: &'a [String],
    next: &'a [String],
}

pub fn print(
    output: Output,
    found: &[(&str, Finding)],
    exit: Option<Exit>,
    has_connected: bool,
) -> Result<(), Refusal> {
    let steps = found.iter().map(|(step, finding)| Entry {
        step,
        result: finding.outcome,
        found: &finding.found,
        warnings: &finding.warnings,
        details: &finding.details,
        next: &finding.next,
    });
    let answer = Answer {
        ok: exit.is_none(),
        exit: exit.map_or(0, |exit| exit as u8),
        steps: steps.collect(),
    };
    output.answer(&answer, || {
        let mut text = String::new();
        for (step, finding) in found {
            text.push_str(&told(step, finding, exit.is_some() && !output.verbose));
        }
        text + &end(found, has_connected)
    })
}

/// The lines of one step. In short what is fine has no details.
fn told(step: &str, finding: &Finding, in_short: bool) -> String {
    let found = printable(&finding.found);
    let first = match finding.outcome {
        // What it proves, a later step tells.
        Outcome::Ok if found.is_empty() => return String::new(),
        Outcome::NotLookedAt => return String::new(),
        Outcome::Ok | Outcome::Warning if in_short => "ok".to_owned(),
        Outcome::Ok | Outcome::Warning => found,
        Outcome::NotSeen => format!("not seen: {found}"),
        Outcome::Failed => format!("{BAD}FAILED:{BAD:#} {found}"),
    };
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{step:INDENT$}{first}");
    for warning in &finding.warnings {
        let warning = printable(warning);
        let _ = writeln!(text, "{:INDENT$}{WARNING}warning:{WARNING:#} {warning}", "");
    }
    for detail in &finding.details {
        let _ = writeln!(text, "{:INDENT$}{}", "", printable(detail));
    }
    let mut label = "  do this:";
    for command in &finding.next {
        let _ = writeln!(text, "{label:INDENT$}{}", printable(command));
        label = "";
    }
    text
}

/// The last line.
fn end(found: &[(&str, Finding)], has_connected: bool) -> String {
    let of = |outcome: Outcome| {
        found
            .iter()
            .filter(move |(_, finding)| finding.outcome == outcome)
    };
    let missing: Vec<_> = of(Outcome::NotLookedAt).map(|(step, _)| *step).collect();
    if let Some((failed, _)) = of(Outcome::Failed).next() {
        return match missing.is_empty() {
            true => String::new(),
            false => format!(
                "{}: not looked at, because of the {failed}.",
                missing.join(", ")
            ),
        };
    }
    let is_proven = |(step, finding): &(&str, Finding)| {
        *step == "signature" && finding.outcome != Outcome::NotSeen
    };
    let warnings: usize = found
        .iter()
        .map(|(_, finding)| finding.warnings.len())
        .sum();
    match (found.iter().any(is_proven), warnings) {
        (false, _) => "Nothing is wrong, as far as it was seen.".to_owned(),
        (true, 0) if has_connected => format!("{GOOD}All is well.{GOOD:#}"),
        (true, 0) => format!(
            "{GOOD}All is well.{GOOD:#} (With --connect broker:8883 the connection is tried, too.)"
        ),
        (true, 1) => "It works, with one warning.".to_owned(),
        (true, warnings) => format!("It works, with {warnings} warnings."),
    }
}
