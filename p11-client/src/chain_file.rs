//! A PEM file with a chain of certificates, and whether it is another one than before.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::O_NONBLOCK;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

use crate::error::Error;

/// Far more than any chain has.
const LONGEST: u64 = 1 << 20;

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
    let text = read(path).map_err(|e| Error::chain_file(path, e))?;
    let certificates = CertificateDer::pem_slice_iter(&text);
    let chain: Vec<_> = certificates.collect::<Result<_, _>>().map_err(unreadable)?;
    match chain.is_empty() {
        true => Err(Error::NoCertificate),
        false => Ok(chain),
    }
}

/// A handshake waits for this: what is no file, a FIFO for example, could hold it up for ever.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if !file.metadata()?.is_file() {
        return refused("it is no regular file");
    }
    let mut text = Vec::new();
    Read::take(file, LONGEST + 1).read_to_end(&mut text)?;
    match text.len() as u64 > LONGEST {
        true => refused("it is longer than 1 MiB"),
        false => Ok(text),
    }
}
