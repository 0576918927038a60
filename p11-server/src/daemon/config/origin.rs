//! Where a setting comes from, for people and for `Status`.

use std::fmt;
use std::path::Path;

use p11_proto::message::{Setting, Source};

use crate::daemon::notice::Place;

/// The place in which the operator has set something.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    source: Source,
    place: Option<String>,
    line: Option<usize>,
    /// In words.
    text: String,
}

impl Origin {
    /// A flag, by its name without the dashes.
    pub fn flag(name: &str) -> Origin {
        let flag = format!("--{name}");
        Origin {
            source: Source::Flag,
            place: Some(flag.clone()),
            line: None,
            text: flag,
        }
    }

    /// A variable of the environment.
    pub fn variable(name: &str) -> Origin {
        Origin {
            source: Source::Variable,
            place: Some(name.into()),
            line: None,
            text: name.into(),
        }
    }

    /// A credential of systemd.
    pub fn credential(name: &str, file: &Path) -> Origin {
        Origin {
            source: Source::Credential,
            place: Some(file.display().to_string()),
            line: None,
            text: format!("the credential {name}"),
        }
    }

    /// A key of tedge.toml.
    pub fn tedge_toml(file: &Path, key: &str, line: usize) -> Origin {
        Origin {
            source: Source::File,
            place: Some(file.display().to_string()),
            line: Some(line),
            text: format!("device.cryptoki.{key} in {} line {line}", file.display()),
        }
    }

    /// The file that is the `pin-source` of the server's URI.
    pub fn pin_source(file: &Path) -> Origin {
        Origin {
            source: Source::Uri,
            place: Some(file.display().to_string()),
            line: None,
            text: format!("{}, the pin-source of the server's URI", file.display()),
        }
    }

    /// An attribute of the server's URI.
    pub fn uri(attribute: &str) -> Origin {
        Origin {
            source: Source::Uri,
            place: None,
            line: None,
            text: format!("{attribute} of the server's URI"),
        }
    }

    /// The socket that the service manager has made.
    pub fn service_manager() -> Origin {
        Origin {
            source: Source::ServiceManager,
            place: None,
            line: None,
            text: "the service manager".into(),
        }
    }

    /// Nobody has set it.
    pub fn default() -> Origin {
        Origin {
            source: Source::Default,
            place: None,
            line: None,
            text: "the default".into(),
        }
    }

    /// The line, where it is a file that has lines.
    pub fn place_in_file(&self) -> Option<Place> {
        let file = self.place.as_ref()?;
        Some(Place {
            line: Some(self.line?),
            ..Place::of(file.as_ref())
        })
    }

    /// A setting that comes from here, as `Status` tells of it. The value of a secret is `None`.
    pub fn setting(&self, name: &str, value: impl Into<Option<String>>) -> Setting {
        Setting::new(name, self.source)
            .value(value)
            .place(self.place.clone())
            .line(self.line.and_then(|line| u32::try_from(line).ok()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
