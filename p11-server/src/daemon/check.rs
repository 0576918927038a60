//! `--check-config`: what the configuration and the policy are worth, without a start.
//!
//! The rules are those of the start. Both are judged, so that what is wrong in the one does not hide what is in the other.

use std::io::{self, Write};

use p11_proto::message::Setting;
use serde::Serialize;

use super::config::{Args, Config};
use super::notice::{Notice, Place};

/// What there is to say, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    ok: bool,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    settings: Vec<Setting>,
}

/// What is wrong, and what to write.
#[derive(Serialize)]
struct Problem {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

/// Says what is wrong, and answers the exit status.
pub(super) fn run(args: &Args) -> i32 {
    let report = judge(args);
    // Who does not want to read it knows by the exit status.
    let _ = match args.json {
        true => print_json(&report),
        false => print_text(&report),
    };
    i32::from(!report.ok)
}

fn judge(args: &Args) -> Report {
    let mut warnings = Vec::new();
    let mut errors = Vec::new();
    let settings = match Config::load(args, false, None, &mut warnings) {
        Ok(config) => {
            let usable = config.cryptoki.settings(&mut warnings);
            errors.extend(usable.err());
            config.report
        }
        Err(error) => {
            errors.push(error);
            args.settings()
        }
    };
    let policy = args.load_policy(&mut warnings);
    errors.extend(policy.err().map(Into::into));
    let problem = |text, place: Option<Place>| Problem {
        message: text,
        line: place.as_ref().and_then(|place| place.line),
        column: place.as_ref().and_then(|place| place.column),
        file: place.map(|place| place.file.display().to_string()),
    };
    Report {
        ok: errors.is_empty(),
        errors: errors
            .iter()
            .map(|error| problem(error.to_string(), error.place()))
            .collect(),
        warnings: warnings
            .into_iter()
            .map(|Notice { text, place }| problem(text, place))
            .collect(),
        settings,
    }
}

fn print_json(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, report)?;
    writeln!(out)
}

/// What is configured on stdout, what is wrong on stderr.
fn print_text(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let width = report.settings.iter().map(|setting| setting.name.len());
    let width = width.max().unwrap_or_default();
    for setting in &report.settings {
        let value = match setting.value.as_deref() {
            Some(value) => value,
            None if setting.name == "pin" => "set, not shown",
            None => "-",
        };
        let value = value.escape_debug();
        let from = match (&setting.place, setting.line) {
            (Some(place), Some(line)) => format!("{place} line {line}"),
            (Some(place), None) => place.clone(),
            (None, _) => setting.source.to_string(),
        };
        writeln!(out, "{:width$}  {value}  ({from})", setting.name)?;
    }
    out.flush()?;
    let mut err = io::stderr().lock();
    for Problem { message, .. } in &report.warnings {
        writeln!(err, "warning: {message}")?;
    }
    for Problem { message, .. } in &report.errors {
        writeln!(err, "error: {message}")?;
    }
    match report.ok {
        true => writeln!(err, "The configuration can be used."),
        false => writeln!(err, "The configuration cannot be used."),
    }
}
