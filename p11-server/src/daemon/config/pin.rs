//! The server's PIN: flag, environment, systemd credential, and files.

use std::env;
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
        let Some(text) = pin.to_str() else {
            return Err(Error::PinEncoding(origin.to_string()));
        };
        let pin = text.into();
        pins.push(ConfiguredPin { pin, origin });
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

/// A file that holds a PIN; line ends at its end are not part of it. What else could be there by mistake is no PIN, so that
/// it uses up no try.
///
/// # Errors
/// What the system said, or what should be there.
pub(super) fn read_file(path: &Path) -> Result<Pin, String> {
    let text = files::read(path).map_err(|error| error.to_string())?;
    let text = str::from_utf8(&text).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let pin = text.trim_end_matches(['\r', '\n']);
    Err(match pin {
        _ if pin.trim().is_empty() => "it is empty; write the PIN into it",
        _ if pin.contains(['\r', '\n']) => "it has several lines; write the PIN alone into it",
        _ if pin.trim() != pin => {
            "there is a blank before or after the PIN; remove it, or give a PIN that has one by \
             TEDGE_DEVICE_CRYPTOKI_PIN"
        }
        _ if pin.contains(|letter: char| letter.is_control() || letter == BYTE_ORDER_MARK) => {
            "it has a control character or a byte order mark, as some editors write it; write the PIN alone into it, as \
             plain UTF-8 text"
        }
        _ => return Ok(Pin::from(pin)),
    }
    .into())
}
