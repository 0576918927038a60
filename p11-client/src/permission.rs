//! Who may use a socket, by the modes of its file and of the folders above it.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// What a user can do who may not connect to the socket at a path.
pub(crate) fn remedy(path: &Path) -> String {
    match path.metadata() {
        // Connecting wants to write.
        Ok(socket) => joining(&socket, 0o020),
        Err(_) => match closed_folder(path) {
            Some((folder, metadata)) => {
                let joining = joining(&metadata, 0o010);
                format!("its folder {folder:?} is closed to this user; {joining}")
            }
            None => "its folder is closed to this user".to_owned(),
        },
    }
}

/// The folder behind which nothing is seen.
fn closed_folder(path: &Path) -> Option<(&Path, Metadata)> {
    let mut folders: Vec<_> = path.ancestors().collect();
    folders.reverse();
    let is_closed = |inside: &Path| {
        let looked = inside.symlink_metadata();
        looked.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
    };
    let inside = folders.into_iter().find(|inside| is_closed(inside))?;
    let folder = inside.parent()?;
    Some((folder, folder.metadata().ok()?))
}

/// Whether joining the group of a file helps, and which it is.
fn joining(file: &Metadata, needed: u32) -> String {
    if file.mode() & needed == 0 {
        let owner = match User::from_uid(Uid::from_raw(file.uid())) {
            Ok(Some(user)) => format!("{:?}", user.name),
            _ => format!("of uid {}", file.uid()),
        };
        return format!("only its owner {owner} may use it: run this program as that user");
    }
    let group = match Group::from_gid(Gid::from_raw(file.gid())) {
        Ok(Some(group)) => format!("{:?}", group.name),
        _ => file.gid().to_string(),
    };
    format!("join its group {group} and log in again")
}
