//! Step `module file`: whether the PKCS#11 module is a library that the server can load. A server that answers tells that
//! itself.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::elf::Library;
use super::files::{owner_and_mode, quoted_path};
use super::finding::{Finding, Looked};
use super::walk::Walk;
use crate::exit::quoted;

/// Where distributions keep modules.
const FOLDERS: [&str; 4] = ["softhsm", "pkcs11", "opensc", ""];
/// How well-known modules begin.
const NAMES: [&str; 8] = [
    "libsofthsm2.so",
    "libtpm2_pkcs11.so",
    "opensc-pkcs11.so",
    "libykcs11.so",
    "libckteec.so",
    "p11-kit-client.so",
    "libopencryptoki.so",
    "libkryoptic_pkcs11.so",
];

pub fn look(walk: &mut Walk<'_>) -> Looked {
    if walk.server_answers() {
        return Ok(Finding::ok(""));
    }
    match walk.module_path() {
        None => Ok(Finding::not_seen(
            "no module is named in tedge.toml or the environment; the server's own flags are not known here",
        )),
        Some(path) => judge(&path),
    }
}

/// What keeps a program of this machine from loading the file.
pub fn judge(path: &Path) -> Looked {
    let shown = path.display();
    if path.is_relative() {
        return Err(offer(Finding::failed(format!(
            "the module {shown} has no absolute path"
        ))));
    }
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(offer(Finding::failed(format!("there is no {shown}"))));
        }
        Err(error) => {
            return Ok(Finding::not_seen(format!(
                "{shown}: {error}; run as root for more"
            )));
        }
    };
    match fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let mode = owner_and_mode(&metadata);
            return Ok(Finding::not_seen(format!(
                "{shown} ({mode}) is not for you to read: run as root for more"
            )));
        }
        _ => {}
    }
    let Some(library) = Library::read(path).filter(|library| library.is_shared) else {
        return Err(offer(Finding::failed(format!(
            "{shown} is no shared library"
        ))));
    };
    if !library.is_of_this_machine() {
        return Err(offer(Finding::failed(format!(
            "{shown} is built for {}, this machine is {}",
            library.machine_name(),
            env::consts::ARCH
        ))));
    }
    if let Some(failed) = lacks(path, &library) {
        return Err(failed);
    }
    match library.has_function_list {
        true => Ok(Finding::ok(format!("{shown}, with all that it needs"))),
        false => Err(offer(Finding::failed(format!(
            "{shown} is no PKCS#11 module: it has no C_GetFunctionList"
        )))),
    }
}

/// A library that it needs and that is not there.
fn lacks(path: &Path, library: &Library) -> Option<Finding> {
    let shown = path.display();
    let missing = library.missing(path);
    let ((name, by), others) = missing.split_first()?;
    let by = match by == path {
        true => shown.to_string(),
        false => format!("{shown}, by way of {},", by.display()),
    };
    let mut finding = Finding::failed(format!("{by} needs {name}, which is not installed"));
    for (other, _) in others {
        finding = finding.detail(format!("So is {other}."));
    }
    Some(
        finding
            .next(format!(
                "apt-file search {}   # which package has it",
                quoted(name)
            ))
            .next(format!("ldd {}", quoted_path(path))),
    )
}

/// The modules that are there instead.
fn offer(finding: Finding) -> Finding {
    let found = installed();
    if found.is_empty() {
        return finding
            .detail("No module of a well-known name is on this machine.")
            .next("apt install softhsm2 # or libtpm2-pkcs11-1, opensc-pkcs11");
    }
    let mut finding = finding.detail("On this machine are:");
    for path in &found {
        finding = finding.detail(format!("  {}", path.display()));
    }
    match found.as_slice() {
        [only] => finding.next(set(only)),
        [first, ..] => finding.next(format!("{} # for example", set(first))),
        [] => finding,
    }
}

fn set(path: &Path) -> String {
    format!(
        "tedge config set device.cryptoki.module_path {}",
        quoted_path(path)
    )
}

fn installed() -> Vec<PathBuf> {
    let of_architecture = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let of_architecture = of_architecture.map(|entry| entry.path());
    let of_architecture =
        of_architecture.filter(|folder| folder.to_string_lossy().contains("-linux-"));
    let libraries = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let libraries = libraries.into_iter().chain(of_architecture);
    let folders = libraries.flat_map(|library| FOLDERS.map(|folder| library.join(folder)));
    let mut found: Vec<PathBuf> = folders
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .filter(|path| path.is_file())
        .collect();
    let mut seen = Vec::new();
    found.retain(|path| {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let is_new = !seen.contains(&real);
        seen.push(real);
        is_new
    });
    found
}
