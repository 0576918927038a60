//! Owners and modes of files, in words.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

use crate::exit::quoted;

/// "root:tss 0660"
pub fn owner_and_mode(file: &Metadata) -> String {
    let mode = file.mode() & 0o7777;
    format!("{}:{} {mode:04o}", user(file.uid()), group(file.gid()))
}

/// The user's name, or its number.
pub fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// The group's name, or its number.
pub fn group(gid: u32) -> String {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        _ => gid.to_string(),
    }
}

/// A path as a shell takes it.
pub fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Whether another user may do this with a file, by its mode: 4 to read it, 2 to change it.
pub fn may(uid: u32, file: &Metadata, what: u32) -> bool {
    let wanted = match uid {
        0 => return true,
        uid if uid == file.uid() => what << 6,
        uid if is_member(uid, file.gid()) => what << 3,
        _ => what,
    };
    file.mode() & wanted == wanted
}

/// The first folder on the way to a file that another user may not look into.
pub fn closed_folder(uid: u32, path: &Path) -> Option<(&Path, Metadata)> {
    let mut folders: Vec<_> = path.ancestors().skip(1).collect();
    folders.reverse();
    folders.into_iter().find_map(|folder| {
        let metadata = fs::metadata(folder).ok()?;
        (!may(uid, &metadata, 1)).then_some((folder, metadata))
    })
}

fn is_member(uid: u32, gid: u32) -> bool {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return false;
    };
    let Ok(Some(group)) = Group::from_gid(Gid::from_raw(gid)) else {
        return false;
    };
    user.gid == group.gid || group.mem.contains(&user.name)
}
