//! Why a configuration cannot be used. It is taken whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use super::origin::Origin;
use crate::daemon::notice::Place;
use crate::daemon::policy;

/// Why the server cannot start (or not go on with a new configuration).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is nothing to load.
    #[error(
        "no PKCS#11 module is configured; set it with --module-path, \
         TEDGE_DEVICE_CRYPTOKI_MODULE_PATH, or device.cryptoki.module_path in {}",
        .0.display()
    )]
    NoModule(PathBuf),
    /// A file is there and cannot be read.
    #[error(
        "cannot read {}: {cause}; make it readable for uid {}, as which the server runs, or remove it",
        path.display(),
        nix::unistd::geteuid()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file is there and is not understood.
    #[error("{place}: {what}")]
    File {
        /// File, line and column.
        place: Place,
        /// What is wrong, and what to write.
        what: String,
    },
    /// A file is not there that should be.
    #[error("there is no {}, {why}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Why it should be there, and what to do.
        why: &'static str,
    },
    /// The PIN is gone from where it was.
    #[error("there is no PIN any more in {0}; put it back, or restart the server to do without")]
    PinGone(String),
    /// The URI is gone, and every token would be within the scope.
    #[error(
        "there is no URI of the server any more, which was {0}; put it back, or restart the server to serve every token"
    )]
    UriGone(String),
    /// The credential of systemd.
    #[error(
        "cannot read the credential {}: {cause}; mend LoadCredential= or SetCredential= of the unit and restart it, \
         which alone reads credentials anew",
        path.display()
    )]
    Credential {
        /// The file.
        path: PathBuf,
        /// What the system said, or what should be there.
        cause: String,
    },
    /// The policy file is unusable.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// A text that is no PIN. It is not shown.
    #[error("the PIN of {origin} cannot be used: {cause}")]
    PinText {
        /// Where it is set.
        origin: Origin,
        /// Why.
        cause: &'static str,
    },
    /// The server's own URI is unusable.
    #[error("the server's URI cannot be used: {cause}; mend it in {origin}")]
    Uri {
        /// Where it is set.
        origin: Origin,
        /// Why.
        cause: p11_uri::Error,
    },
    /// The file that the URI names as the source of the PIN.
    #[error("cannot read the PIN from {}, the pin-source of the server's URI: {cause}", path.display())]
    PinSource {
        /// The file.
        path: PathBuf,
        /// What the system said, or what should be there.
        cause: String,
    },
}

impl Error {
    /// The file that has to change, beside those that are always looked at.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Error::PinSource { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Which file it is about, and where in it.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Error::File { place, .. } => Some(place.clone()),
            Error::Policy(error) => Some(error.place()),
            Error::NoModule(path)
            | Error::Unreadable { path, .. }
            | Error::Missing { path, .. }
            | Error::Credential { path, .. }
            | Error::PinSource { path, .. } => Some(Place::of(path)),
            Error::Uri { origin, .. } | Error::PinText { origin, .. } => origin.place_in_file(),
            Error::PinGone(_) | Error::UriGone(_) => None,
        }
    }
}
