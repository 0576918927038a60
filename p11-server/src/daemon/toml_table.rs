//! Tables of a TOML file, read by serde, and where an error in them is.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// What is wrong in a TOML file, or what was expected there.
pub(super) struct TomlError {
    /// Where it begins.
    byte: usize,
    pub(super) what: String,
}

impl TomlError {
    pub(super) fn new(span: Range<usize>, what: impl Into<String>) -> TomlError {
        TomlError {
            byte: span.start,
            what: what.into(),
        }
    }

    /// Both count from 1, the column in characters.
    pub(super) fn line_and_column(&self, file: &[u8]) -> (usize, usize) {
        let before = file.get(..self.byte).unwrap_or(file);
        let mut lines = before.rsplit(|byte| *byte == b'\n');
        let line = String::from_utf8_lossy(lines.next().unwrap_or_default());
        (lines.count() + 1, line.chars().count() + 1)
    }
}

pub(super) fn into_table<'t>(
    value: Spanned<DeValue<'t>>,
    expected: &str,
) -> Result<Spanned<DeTable<'t>>, TomlError> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Table(table) => Ok(Spanned::new(span, table)),
        _ => Err(TomlError::new(span, expected)),
    }
}

/// Reads a table into a struct. An error is what `expected` says about the field: serde's own text has
/// the value, which may be a PIN.
pub(super) fn into_struct<'t, T: Deserialize<'t>>(
    table: Spanned<DeTable<'t>>,
    expected: fn(&str) -> String,
) -> Result<T, TomlError> {
    serde_path_to_error::deserialize(Deserializer::from(table)).map_err(|error| {
        let field = error.path().iter().next().map(ToString::to_string);
        let span = error.inner().span().unwrap_or_default();
        TomlError::new(span, expected(&field.unwrap_or_default()))
    })
}
