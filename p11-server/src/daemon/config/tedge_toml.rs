//! Section `device.cryptoki` of `tedge.toml`, thin-edge's configuration file.

use std::io;
use std::path::{Path, PathBuf};

use p11_proto::Pin;
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use super::error::Error;
use super::origin::Origin;
use crate::daemon::files;
use crate::daemon::notice::{Notice, Place};
use crate::daemon::toml_table::{TomlError, into_struct, into_table};

/// What the server uses of the section. Other keys, such as `mode`, are for thin-edge.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct TedgeToml {
    pub(super) module_path: Option<PathBuf>,
    pub(super) pin: Option<Pin>,
    /// The line of each of these that is there.
    #[serde(skip)]
    lines: Vec<(&'static str, usize)>,
    /// Whether it is there and empty.
    #[serde(skip)]
    pub(super) pin_is_empty: bool,
    pub(super) uri: Option<String>,
    pub(super) socket_path: Option<PathBuf>,
    #[serde(skip)]
    pub(super) warnings: Vec<Notice>,
}

const KEYS: [&str; 4] = ["module_path", "pin", "uri", "socket_path"];

impl TedgeToml {
    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Unreadable`], and [`Error::File`] where any of it is not understood: half of a configuration could
    /// widen the scope, or bring another PIN.
    pub(super) fn read(path: &Path) -> Result<Option<TedgeToml>, Error> {
        let unreadable = |cause| Error::Unreadable {
            path: path.into(),
            cause,
        };
        let file = match files::read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let place = |error: &TomlError| {
            let (line, column) = error.line_and_column(&file);
            Place {
                line: Some(line),
                column: Some(column),
                ..Place::of(path)
            }
        };
        let mut warnings = Vec::new();
        let mut warn = |error: TomlError| {
            let place = place(&error);
            warnings.push(Notice {
                text: format!("{place}: {}", error.what),
                place: Some(place),
            });
        };
        let values = parse(&file, &mut warn).map_err(|error| Error::File {
            place: place(&error),
            what: error.what,
        })?;
        if values.pin.is_some() {
            warnings.extend(files::warn_of_readers(path));
        }
        Ok(Some(TedgeToml { warnings, ..values }))
    }
}

impl TedgeToml {
    /// Where a key of this file is set.
    pub(super) fn origin(&self, file: &Path, key: &'static str) -> Origin {
        let line = self.lines.iter().find(|(name, _)| *name == key);
        Origin::tedge_toml(file, key, line.map_or(0, |(_, line)| *line))
    }
}

/// The parser's own errors are not passed on: they quote the line, where the PIN may be.
fn parse(file: &[u8], warn: &mut impl FnMut(TomlError)) -> Result<TedgeToml, TomlError> {
    let text = str::from_utf8(file).map_err(|error| {
        let span = error.valid_up_to()..file.len();
        TomlError::new(span, "invalid TOML; it is not UTF-8 text")
    })?;
    let mut table = DeTable::parse(text).map_err(|error| {
        let what = "invalid TOML; each key stands once, text in quotes: pin = \"...\"";
        TomlError::new(error.span().unwrap_or_default(), what)
    })?;
    for name in ["device", "cryptoki"] {
        let Some(value) = table.get_mut().remove(name) else {
            return Ok(TedgeToml::default());
        };
        table = into_table(value, "expected a table: [device.cryptoki]")?;
    }
    for key in table.get_ref().keys() {
        if let Some(similar) = similar_key(key.get_ref()) {
            let name = key.get_ref();
            let what = format!("[device.cryptoki] has no {name:?}; did you mean {similar}?");
            warn(TomlError::new(key.span(), what));
        }
    }
    let mut pin_is_empty = false;
    for key in KEYS {
        // An empty text is the same as none.
        let value = table.get_ref().get(key);
        if value.and_then(|value| value.get_ref().as_str()) != Some("") {
            continue;
        }
        if key == "pin" {
            pin_is_empty = true;
            let what = "pin is empty, which is the same as none; write the PIN there, or remove it";
            warn(TomlError::new(value.map_or(0..0, Spanned::span), what));
        }
        table.get_mut().remove(key);
    }
    let line = |key| {
        let span = table.get_ref().get(key).map(Spanned::span)?;
        Some((key, TomlError::new(span, "").line_and_column(file).0))
    };
    let lines = KEYS.into_iter().filter_map(line).collect();
    let values: TedgeToml = into_struct(table, |key| {
        format!("device.cryptoki.{key} must be text: {key} = \"...\"")
    })?;
    Ok(TedgeToml {
        lines,
        pin_is_empty,
        ..values
    })
}

/// The key that was probably meant by an unknown one.
fn similar_key(key: &str) -> Option<&'static str> {
    if KEYS.contains(&key) {
        return None;
    }
    let key = key.to_lowercase();
    let near = |known: &&str| strsim::osa_distance(&key, known) <= known.len() / 3;
    KEYS.into_iter().find(near)
}

/// What must hold for any bytes of the file: the body of the fuzz target, and of a test.
#[cfg(any(test, fuzzing))]
#[allow(clippy::panic, reason = "a check fails by panicking")]
pub fn check_tedge_toml(input: &[u8]) {
    const PIN: &str = "7391826450";
    let text = String::from_utf8_lossy(input);
    for planted in [PIN.to_owned(), format!("\"{PIN}\""), format!("\"{PIN}")] {
        let file = format!("{text}\npin = {planted}\n[device.cryptoki]\npin = {planted}\n");
        let mut said = Vec::new();
        let mut warn = |error: TomlError| said.push(error.what);
        if let Err(error) = parse(file.as_bytes(), &mut warn) {
            let (line, column) = error.line_and_column(file.as_bytes());
            assert!(line >= 1 && column >= 1 && line <= file.lines().count() + 1);
            said.push(error.what);
        }
        assert!(said.iter().all(|what| !what.contains(PIN)), "{said:?}");
    }
    let _ = parse(input, &mut drop);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_the_file_no_pin_is_repeated() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/tedge_toml");
        let Ok(files) = std::fs::read_dir(folder) else {
            // In the package of this crate alone there is none.
            return;
        };
        for file in files {
            check_tedge_toml(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}
