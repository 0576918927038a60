//! Files of the configuration: read whole, and whether others may read or write them.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::notice::Notice;
use crate::files;

/// How long a file must have been left alone before it is taken for whole.
const SETTLED: Duration = Duration::from_secs(2);

/// What is in a file of the configuration, wiped when it is dropped.
///
/// # Errors
/// What the system says.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    files::read(path, OFlag::empty())
}

/// The warning about a file with a PIN that every user of the machine may read.
pub(super) fn warn_of_readers(path: &Path) -> Option<Notice> {
    let mode = fs::metadata(path).ok()?.mode();
    (mode & 0o004 != 0).then(|| {
        let text = format!(
            "{} holds a PIN, and every user of this machine may read it; chmod o-r it",
            path.display()
        );
        Notice::of(path, text)
    })
}

/// The warning about a file that decides who may do what, and that others than root and the server may write or
/// replace.
pub(super) fn warn_of_writers(path: &Path) -> Option<Notice> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let what = match (others_write(path), others_write(folder)) {
        (true, _) => format!("the policy {}", path.display()),
        (_, true) => format!("{}, the folder of the policy", folder.display()),
        _ => return None,
    };
    let text = format!(
        "others may write {what}, and so give themselves every right; chown it to root, and chmod go-w it"
    );
    Some(Notice::of(path, text))
}

/// Whether others than root and the server may. In a folder with the sticky bit only a file's owner may replace it.
fn others_write(path: &Path) -> bool {
    const STICKY: u32 = 0o1000;
    fs::metadata(path).is_ok_and(|found| {
        let owners = [0, geteuid().as_raw()];
        let is_shared = found.mode() & 0o022 != 0 && found.mode() & STICKY == 0;
        is_shared || !owners.contains(&found.uid())
    })
}

/// Files that are looked at again and again until one has been changed, and then been left alone for a while.
pub(super) struct Watch {
    files: Vec<PathBuf>,
    /// As they were when they were last tried.
    tried: Vec<Option<Seen>>,
    seen: Vec<Option<Seen>>,
    since: Instant,
}

/// What changes with a file: device, inode, length, and when contents or rights were last changed.
type Seen = (u64, u64, u64, (i64, i64), (i64, i64));

impl Watch {
    /// Watches these from now on.
    pub fn new(files: Vec<PathBuf>) -> Watch {
        let seen: Vec<_> = files.iter().map(|file| look(file)).collect();
        Watch {
            files,
            tried: seen.clone(),
            seen,
            since: Instant::now(),
        }
    }

    /// Whether it is worth another try.
    pub fn is_due(&mut self) -> bool {
        let now: Vec<_> = self.files.iter().map(|file| look(file)).collect();
        if now != self.seen {
            self.seen = now;
            self.since = Instant::now();
        }
        self.seen != self.tried && self.since.elapsed() >= SETTLED
    }
}

fn look(file: &Path) -> Option<Seen> {
    let seen = |found: Metadata| {
        let changed = (found.mtime(), found.mtime_nsec());
        let touched = (found.ctime(), found.ctime_nsec());
        (found.dev(), found.ino(), found.len(), changed, touched)
    };
    fs::metadata(file).ok().map(seen)
}
