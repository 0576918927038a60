//! PINs in files: the systemd credential, and the `pin-source` of a URI.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use p11_proto::Pin;
use zeroize::Zeroizing;

/// The systemd credential named `pin` (systemd.exec(5), `LoadCredential=`).
pub(super) fn credential(warnings: &mut Vec<String>) -> Option<Pin> {
    let folder = env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty())?;
    let path = PathBuf::from(folder).join("pin");
    match read_file(&path) {
        Ok(pin) => Some(pin).filter(|pin| !pin.expose().is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warnings.push(format!("Failed to read {}: {error}", path.display()));
            None
        }
    }
}

/// A file that holds a PIN; one newline at its end is not part of it.
pub(super) fn read_file(path: &Path) -> io::Result<Pin> {
    let text = Zeroizing::new(fs::read_to_string(path)?);
    Ok(Pin::from(text.strip_suffix('\n').unwrap_or(&text)))
}
