//! Small files, read whole.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use zeroize::Zeroizing;

/// No file is longer.
const LONGEST: u64 = 1 << 20;

/// What is in a file, wiped when it is dropped. What is no regular file, and so may wait for ever, is not read. Flags say how else it
/// is opened.
///
/// # Errors
/// What the system says.
pub(crate) fn read(path: &Path, flags: OFlag) -> io::Result<Zeroizing<Vec<u8>>> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    let found = file.metadata()?;
    if found.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    if !found.is_file() || found.len() > LONGEST {
        return Err(io::Error::other("it is no regular file of at most 1 MiB"));
    }
    // At once as much as there is, since what outgrows its memory leaves a copy behind.
    let length = usize::try_from(found.len()).map_err(io::Error::other)?;
    let mut text = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}
