//! The server's PIN: flag, environment, systemd credential, and files.

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use p11_proto::Pin;

use super::args::{self, Args};
use super::error::Error;
use super::origin::Origin;
use crate::daemon::files;
use crate::daemon::notice::Notice;

/// What some editors write before a text, and nobody sees.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A PIN that the operator has set.
#[derive(Clone)]
pub(super) struct ConfiguredPin {
    pub(super) pin: Pin,
    pub(super) origin: Origin,
}

impl ConfiguredPin {
    /// A text of flag, variable or tedge.toml, which is held to what holds in files.
    ///
    /// # Errors
    /// [`Error::PinText`]
    pub(super) fn new(text: &[u8], origin: Origin) -> Result<ConfiguredPin, Error> {
        match of_text(text, false) {
            Ok(pin) => Ok(ConfiguredPin { pin, origin }),
            Err(cause) => Err(Error::PinText { origin, cause }),
        }
    }

    /// The same for the `pin-value` of the server's URI, in which a blank was meant: it is written as `%20`.
    ///
    /// # Errors
    /// [`Error::PinText`]
    pub(super) fn of_uri(pin: &Pin) -> Result<ConfiguredPin, Error> {
        let origin = Origin::uri("pin-value");
        match of_text(pin.expose().as_bytes(), true) {
            Ok(pin) => Ok(ConfiguredPin { pin, origin }),
            Err(cause) => Err(Error::PinText { origin, cause }),
        }
    }
}

/// Those of flag, environment and credential, the one that goes before the others first.
///
/// # Errors
/// [`Error`]
pub(super) fn given(args: &Args, warnings: &mut Vec<Notice>) -> Result<Vec<ConfiguredPin>, Error> {
    let variable = env::var_os(args::PIN).filter(|pin| !pin.is_empty());
    let (flag, variable) = match args.is_flag("pin") {
        true => (args.pin.clone(), variable),
        false => (None, args.pin.clone()),
    };
    if flag.is_some() {
        warnings.push(
            "the PIN was given on the command line, where every user of this machine can read \
             it in the process list; TEDGE_DEVICE_CRYPTOKI_PIN or a systemd credential hides it"
                .into(),
        );
    }
    if args.pin_is_empty {
        let text = "--pin or TEDGE_DEVICE_CRYPTOKI_PIN is empty, which is the same as none; write the PIN there, or \
                    remove it";
        warnings.push(text.into());
    }
    let mut pins = Vec::new();
    for (given, origin) in [
        (flag, Origin::flag("pin")),
        (variable, Origin::variable(args::PIN)),
    ] {
        let Some(pin) = given else { continue };
        pins.push(ConfiguredPin::new(pin.as_bytes(), origin)?);
    }
    pins.extend(credential()?);
    Ok(pins)
}

/// The systemd credential named `pin` (systemd.exec(5), `LoadCredential=`).
///
/// # Errors
/// [`Error::Credential`]
fn credential() -> Result<Option<ConfiguredPin>, Error> {
    let folder = env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    let path = folder.map(|folder| PathBuf::from(folder).join("pin"));
    let Some(path) = path.filter(|path| path.symlink_metadata().is_ok()) else {
        return Ok(None);
    };
    let origin = Origin::credential("pin", &path);
    let pin = read_file(&path).map_err(|cause| Error::Credential { path, cause })?;
    Ok(Some(ConfiguredPin { pin, origin }))
}

/// The folder for refused PINs: the first of `RuntimeDirectory=` (systemd.exec(5)).
pub(super) fn refusals() -> Option<PathBuf> {
    let folders = env::var_os("RUNTIME_DIRECTORY").filter(|folders| !folders.is_empty())?;
    env::split_paths(&folders).next()
}

/// A file that holds a PIN.
///
/// # Errors
/// What the system said, or what should be there.
pub(super) fn read_file(path: &Path) -> Result<Pin, String> {
    let text = files::read(path).map_err(|error| error.to_string())?;
    of_text(&text, false).map_err(str::to_owned)
}

/// A PIN as people and editors write it; line ends at its end are not part of it. What else could be there by mistake is no
/// PIN, so that it uses up no try.
fn of_text(text: &[u8], may_have_blanks: bool) -> Result<Pin, &'static str> {
    let text = str::from_utf8(text).map_err(|_| "it is not UTF-8 text")?;
    let pin = text.trim_end_matches(['\r', '\n']);
    Err(match pin {
        _ if pin.trim().is_empty() => "it is empty; write the PIN there",
        _ if pin.contains(['\r', '\n']) => "it has several lines; write the PIN alone there",
        _ if pin.trim() != pin && !may_have_blanks => {
            "there is a blank before or after the PIN; remove it, or write it as %20 in pin-value of the server's URI"
        }
        _ if pin.contains(|letter: char| letter.is_control() || letter == BYTE_ORDER_MARK) => {
            "it has a control character or a byte order mark, as some editors write it; write the PIN alone there, as \
             plain UTF-8 text"
        }
        _ => return Ok(Pin::from(pin)),
    })
}
