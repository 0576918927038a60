//! What an operator should know of a configuration, and which line it is about.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in a file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub file: PathBuf,
    pub line: Option<usize>,
    pub column: Option<usize>,
}

/// A warning.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    /// All of it, for people.
    pub text: String,
    pub place: Option<Place>,
}

impl Place {
    /// A file as a whole.
    pub fn of(file: &Path) -> Place {
        Place {
            file: file.into(),
            line: None,
            column: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        match self.column {
            Some(column) => write!(f, ", column {column}"),
            None => Ok(()),
        }
    }
}

impl Notice {
    /// A warning about a file as a whole, which its text names.
    pub fn of(file: &Path, text: String) -> Notice {
        Notice {
            text,
            place: Some(Place::of(file)),
        }
    }
}

impl From<String> for Notice {
    fn from(text: String) -> Notice {
        Notice { text, place: None }
    }
}

impl From<&str> for Notice {
    fn from(text: &str) -> Notice {
        text.to_owned().into()
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
