//! What keeps the server's account from a file, a folder or a socket, and what to do.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::unistd::{AccessFlags, Gid, Group, Uid, User, access, geteuid};

pub(super) const READ: AccessFlags = AccessFlags::R_OK;
pub(super) const CHANGE: AccessFlags = READ.union(AccessFlags::W_OK);
pub(super) const CHANGE_FOLDER: AccessFlags = CHANGE.union(AccessFlags::X_OK);

/// What keeps the server's account from something: that it does not exist, and the step to take then, or whose it is.
pub(super) fn obstacle(
    name: &str,
    path: &Path,
    wanted: AccessFlags,
    if_absent: &str,
) -> Option<String> {
    let what = format!("{name} {}", path.display());
    Some(match access(path, wanted).err()? {
        Errno::ENOENT | Errno::ENOTDIR => match fs::read_link(path) {
            Ok(end) => format!(
                "{what} is a link to {}, which does not exist; {if_absent}",
                end.display()
            ),
            Err(_) => format!("{what} does not exist; {if_absent}"),
        },
        Errno::EACCES => {
            let done = if wanted == READ { "read" } else { "changed" };
            let account = account();
            let owner = owner(path, wanted).unwrap_or_default();
            format!("{what} may not be {done} by this account, {account}{owner}")
        }
        Errno::EROFS => {
            format!("{what} is read-only for this program; in a unit, name it in ReadWritePaths")
        }
        other => format!("{what} cannot be used: {}", other.desc()),
    })
}

/// The same for a folder whose files are changed.
pub(super) fn folder_obstacle(name: &str, path: &Path, if_absent: &str) -> Option<String> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Some(format!(
            "{name} {} is no folder; {if_absent}",
            path.display()
        )),
        _ => obstacle(name, path, CHANGE_FOLDER, if_absent),
    }
}

/// The same for a socket, on which somebody should listen.
pub(super) fn socket_obstacle(name: &str, path: &Path, if_absent: &str) -> Option<String> {
    obstacle(name, path, CHANGE, if_absent).or_else(|| {
        let what = format!("{name} {}", path.display());
        match connect(path).err()? {
            // Somebody listens who has much to do.
            Errno::EAGAIN | Errno::EINPROGRESS | Errno::EINTR => None,
            Errno::ECONNREFUSED if is_socket(path) => {
                Some(format!("nobody listens at {what}; {if_absent}"))
            }
            Errno::ECONNREFUSED | Errno::ENOTSOCK => {
                Some(format!("{what} is no socket; {if_absent}"))
            }
            other => Some(format!("{what} cannot be used: {}", other.desc())),
        }
    })
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Does not wait where the queue is full.
fn connect(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Whose a path is, or the folder on the way to it that cannot be looked into, and how to get the right.
fn owner(path: &Path, wanted: AccessFlags) -> Option<String> {
    let mut way = path.ancestors();
    let (at, found) = way.find_map(|at| Some((at, fs::metadata(at).ok()?)))?;
    let (subject, needed) = match at == path {
        true => ("it".into(), wanted.bits().cast_unsigned()),
        // To look into a folder.
        false => (at.display().to_string(), 1),
    };
    let user = match User::from_uid(Uid::from_raw(found.uid())) {
        Ok(Some(user)) => user.name,
        _ => found.uid().to_string(),
    };
    let group = match Group::from_gid(Gid::from_raw(found.gid())) {
        Ok(Some(group)) => group.name,
        _ => found.gid().to_string(),
    };
    let mode = found.mode() & 0o7777;
    let step = match (mode >> 3) & needed == needed && found.gid() != 0 {
        true => {
            format!("add that account to the group {group} (in a unit SupplementaryGroups={group})")
        }
        false => "chown or chmod it, or run the program as its owner".into(),
    };
    Some(format!(
        ": {subject} belongs to {user}:{group} with mode {mode:04o}; {step}"
    ))
}

/// `nobody (65534)`
pub(super) fn account() -> String {
    let id = geteuid();
    match User::from_uid(id) {
        Ok(Some(user)) => format!("{} ({id})", user.name),
        _ => format!("uid {id}"),
    }
}
