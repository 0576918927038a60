//! What a kind of module needs beside it, seen from outside of the server's sandbox.
//!
//! What the server sees itself it tells itself. Here stands what it cannot see: whether the machine has what its sandbox
//! hides.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::finding::Finding;
use super::walk::Walk;
use crate::exit::quoted;

/// What a module needs, and what lets a sandbox see it.
struct Need {
    path: PathBuf,
    /// Whether the module changes it.
    written: bool,
    drop_in: &'static str,
    lines: String,
}

/// What the server's sandbox keeps from the module, with the commands that open it.
pub fn hidden(walk: &Walk<'_>, module: &Path) -> Option<Finding> {
    let process = walk.process.as_ref()?;
    process.shows_files().ok()?;
    needs(walk, module).into_iter().find_map(|need| {
        let (here, inside) = (&need.path, process.sees(&need.path));
        if !here.exists() {
            return None;
        }
        let finding = if fs::symlink_metadata(&inside).is_err() {
            Finding::failed(format!(
                "{} is there, but not in the sandbox of the server",
                here.display()
            ))
        } else if need.written && is_read_only(&inside) && !is_read_only(here) {
            Finding::failed(format!(
                "{} is there, but the sandbox of the server has it read-only",
                here.display()
            ))
        } else {
            return None;
        };
        let folder = "/etc/systemd/system/tedge-p11-server.service.d";
        let unit = format!("[Service]\\n{}\\n", need.lines);
        let make = format!("printf {} >{folder}/{}", quoted(&unit), need.drop_in);
        Some(
            finding
                .next(format!("mkdir -p {folder}"))
                .next(make)
                .next("systemctl daemon-reload; systemctl restart tedge-p11-server"),
        )
    })
}

/// Whether nobody can tell for want of rights.
pub fn is_closed(walk: &Walk<'_>) -> bool {
    walk.process
        .as_ref()
        .is_some_and(|process| process.shows_files().is_err())
}

fn needs(walk: &Walk<'_>, module: &Path) -> Vec<Need> {
    let name = module.file_name().unwrap_or_default().to_string_lossy();
    let folder = |path: PathBuf, drop_in| Need {
        lines: format!("ReadWritePaths=-{}", path.display()),
        path,
        written: true,
        drop_in,
    };
    if name.starts_with("libtpm2_pkcs11") {
        let device = tpm_device(walk);
        let device = device.map(|path| Need {
            lines: format!(
                "PrivateDevices=no\\nDeviceAllow={} rw\\nSupplementaryGroups=tss",
                path.display()
            ),
            path,
            written: false,
            drop_in: "tpm.conf",
        });
        let store = walk.server_variable("TPM2_PKCS11_STORE");
        let store = store.map(|store| folder(store.into(), "store.conf"));
        return device.into_iter().chain(store).collect();
    }
    if name.starts_with("libsofthsm") {
        return softhsm_tokens(walk)
            .map(|path| folder(path, "softhsm.conf"))
            .into_iter()
            .collect();
    }
    if name.contains("opensc-pkcs11") || name.starts_with("libykcs11") {
        let socket = walk.server_variable("PCSCLITE_CSOCK_NAME");
        let path = PathBuf::from(socket.unwrap_or_else(|| "/run/pcscd/pcscd.comm".to_owned()));
        let bound = path.parent().unwrap_or(&path).display();
        return vec![Need {
            lines: format!("BindPaths=-{bound}"),
            path,
            written: false,
            drop_in: "pcscd.conf",
        }];
    }
    Vec::new()
}

fn tpm_device(walk: &Walk<'_>) -> Option<PathBuf> {
    match walk.server_variable("TPM2_PKCS11_TCTI") {
        None => Some("/dev/tpmrm0".into()),
        Some(way) if way.is_empty() => Some("/dev/tpmrm0".into()),
        Some(way) => way.strip_prefix("device:").map(PathBuf::from),
    }
}

fn softhsm_tokens(walk: &Walk<'_>) -> Option<PathBuf> {
    let file = walk.server_variable("SOFTHSM2_CONF");
    let text = fs::read_to_string(file.as_deref().unwrap_or("/etc/softhsm/softhsm2.conf")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let (_, folder) = lines.find(|(name, _)| name.trim() == "directories.tokendir")?;
    Some(folder.trim().into())
}

fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|system| system.flags().contains(FsFlags::ST_RDONLY))
}
