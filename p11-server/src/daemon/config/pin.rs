//! PINs in files: the systemd credential, and the `pin-source` of a URI.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use p11_proto::Pin;
use zeroize::Zeroizing;

use super::error::Error;

/// The systemd credential named `pin` (systemd.exec(5), `LoadCredential=`).
///
/// # Errors
/// [`Error::Credential`]
pub(super) fn credential() -> Result<Option<Pin>, Error> {
    let folder = env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    let Some(path) = folder.map(|folder| PathBuf::from(folder).join("pin")) else {
        return Ok(None);
    };
    match read_file(&path) {
        Ok(pin) => Ok(Some(pin).filter(|pin| !pin.expose().is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::Credential { path, cause }),
    }
}

/// A file that holds a PIN; one newline at its end is not part of it.
pub(super) fn read_file(path: &Path) -> io::Result<Pin> {
    let text = Zeroizing::new(fs::read_to_string(path)?);
    Ok(Pin::from(text.strip_suffix('\n').unwrap_or(&text)))
}
