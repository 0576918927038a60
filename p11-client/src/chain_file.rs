//! A PEM file with a chain of certificates, and whether it is another one than before.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

use crate::error::Error;

/// What changes when a file is written or replaced (inode(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    file: (u64, u64),
    length: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    pub(crate) fn of(path: &Path) -> Result<Self, Error> {
        let of = |file: Metadata| FileState {
            file: (file.dev(), file.ino()),
            length: file.len(),
            written: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        };
        fs::metadata(path)
            .map(of)
            .map_err(|e| Error::chain_file(path, e))
    }
}

/// The certificates in a PEM file.
///
/// # Errors
/// [`Error::ChainFile`] where it cannot be read, or is no PEM; [`Error::NoCertificate`] where none is in it.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = |error: pem::Error| Error::chain_file(path, error);
    let certificates = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let chain: Vec<_> = certificates.collect::<Result<_, _>>().map_err(unreadable)?;
    match chain.is_empty() {
        true => Err(Error::NoCertificate),
        false => Ok(chain),
    }
}
