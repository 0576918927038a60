//! Step `socket`: it is there, this user may connect, and somebody listens.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::unistd::Uid;
use p11_client::Error;

use super::files::{group, owner_and_mode, quoted_path};
use super::finding::{Finding, Looked};
use super::units::SOCKET;
use super::walk::Walk;
use crate::exit::{Exit, Refusal};

pub fn look(walk: &mut Walk<'_>) -> Looked {
    let path = walk.socket.as_path();
    match &walk.status {
        Err(Error::PermissionDenied(path)) => {
            let refusal = Refusal::from(Error::PermissionDenied(path.clone()));
            Err(Finding::from(refusal).exit(Exit::NotAllowed))
        }
        Err(Error::NoSocket(_)) => Err(start(
            walk,
            Finding::failed(format!("there is no socket {}", path.display())),
        )),
        Err(Error::Refused(_)) => Err(start(
            walk,
            Finding::failed(format!("nobody listens on {}", path.display())),
        )),
        Err(error @ (Error::NotASocket { .. } | Error::StaleMount(_) | Error::Socket { .. })) => {
            Err(Finding::failed(error.to_string()))
        }
        _ => Ok(Finding::ok(who_may(path))),
    }
}

fn start(walk: &Walk<'_>, finding: Finding) -> Finding {
    let finding = match fs::symlink_metadata(&walk.socket) {
        Ok(file) if !file.file_type().is_socket() => finding.detail("What is there is no socket."),
        _ => finding,
    };
    match walk
        .units
        .as_ref()
        .is_some_and(|units| units.socket.is_loaded())
    {
        true => finding.next(format!("systemctl start {SOCKET}")),
        false => {
            let module = walk.module_path();
            let module = module.as_deref().unwrap_or(Path::new("MODULE"));
            finding.next(format!(
                "tedge-p11-server --module-path {} --socket-path {}",
                quoted_path(module),
                quoted_path(&walk.socket)
            ))
        }
    }
}

/// "tedge:tedge 0660; you may connect (group tedge)"
fn who_may(path: &Path) -> String {
    let Ok(file) = fs::metadata(path) else {
        return "you may connect".to_owned();
    };
    let me = Uid::effective();
    let by = if me.is_root() {
        "as root".to_owned()
    } else if file.uid() == me.as_raw() {
        "as its owner".to_owned()
    } else if file.mode() & 0o002 != 0 {
        "as everybody".to_owned()
    } else {
        format!("group {}", group(file.gid()))
    };
    format!("{}; you may connect ({by})", owner_and_mode(&file))
}
