//! tedge's configuration file enters; the values of its section `device.cryptoki` that are ours leave.
//!
//! Nothing that is said about the file quotes it, since it may hold the PIN.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use p11_proto::Pin;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

/// The file, read when a value is first wanted.
pub(super) struct TedgeToml {
    pub(super) path: PathBuf,
    section: Option<Result<Section, String>>,
}

/// What is not empty in `device.cryptoki`; other keys there belong to others.
#[derive(Default)]
pub(super) struct Section {
    pub(super) module_path: Option<PathBuf>,
    pub(super) pin: Option<Pin>,
    pub(super) uri: Option<String>,
    pub(super) socket_path: Option<PathBuf>,
}

impl TedgeToml {
    pub(super) fn at(path: PathBuf) -> TedgeToml {
        TedgeToml {
            path,
            section: None,
        }
    }

    pub(super) fn get<T>(&mut self, value: fn(&mut Section) -> &mut Option<T>) -> Option<T> {
        let section = self
            .section
            .get_or_insert_with(|| Section::read(&self.path));
        value(section.as_mut().ok()?).take()
    }

    /// Why no value could be had, if one was wanted.
    pub(super) fn warning(&self) -> Option<String> {
        self.section.as_ref()?.as_ref().err().cloned()
    }
}

impl Section {
    fn read(path: &Path) -> Result<Section, String> {
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Section::default()),
            Err(error) => return Err(format!("Failed to read {}: {error}", path.display())),
        };
        Section::parse(&text)
            .map_err(|Invalid| format!("Failed to parse {}: invalid TOML", path.display()))
    }

    fn parse(text: &str) -> Result<Section, Invalid> {
        let mut file = DeTable::parse(text).map_err(|_| Invalid)?.into_inner();
        let Some(device) = subtable(&mut file, "device")? else {
            return Ok(Section::default());
        };
        let Some(section) = subtable(device, "cryptoki")? else {
            return Ok(Section::default());
        };
        // First, so that it is wiped even if another value is refused.
        let pin = take(section, "pin")?.map(Pin::from);
        Ok(Section {
            module_path: take(section, "module_path")?.map(PathBuf::from),
            pin,
            uri: take(section, "uri")?,
            socket_path: take(section, "socket_path")?.map(PathBuf::from),
        })
    }
}

/// No TOML, or a value of another type. The parser's own message quotes the line.
struct Invalid;

fn subtable<'a, 't>(
    table: &'a mut DeTable<'t>,
    name: &str,
) -> Result<Option<&'a mut DeTable<'t>>, Invalid> {
    match table.get_mut(name).map(Spanned::get_mut) {
        None => Ok(None),
        Some(DeValue::Table(table)) => Ok(Some(table)),
        Some(_) => Err(Invalid),
    }
}

/// Takes a text out of the table, so that no copy of it stays there.
fn take(table: &mut DeTable<'_>, name: &str) -> Result<Option<String>, Invalid> {
    match table.get_mut(name).map(Spanned::get_mut) {
        None => Ok(None),
        Some(DeValue::String(text)) => {
            let text = std::mem::take(text).into_owned();
            Ok(Some(text).filter(|text| !text.is_empty()))
        }
        Some(_) => Err(Invalid),
    }
}
