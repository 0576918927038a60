//! The programs that tests run. A missing one is a panic that names its Debian package.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Which Debian package brings each program.
const PACKAGES: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("certtool", "gnutls-bin"),
    ("chroot", "coreutils"),
    ("certutil", "libnss3-tools"),
    ("dbus-daemon", "dbus-daemon"),
    ("dbus-send", "dbus-bin"),
    ("mosquitto", "mosquitto"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("p11-kit", "p11-kit"),
    ("p11tool", "gnutls-bin"),
    ("pcscd", "pcscd"),
    ("pkcs11-tool", "opensc"),
    ("pkcsslotd", "opencryptoki"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("sh", "dash"),
    ("softhsm2-util", "softhsm2"),
    ("swtpm", "swtpm"),
    ("systemd-analyze", "systemd"),
    ("systemd-socket-activate", "systemd"),
    ("tpm2-abrmd", "tpm2-abrmd"),
    ("tpm2_getcap", "tpm2-tools"),
    ("tpm2_ptool", "libtpm2-pkcs11-tools"),
    ("unshare", "util-linux"),
];

/// Which Debian package brings each PKCS#11 module or other library.
const MODULES: &[(&str, &str)] = &[
    ("libifdvpcd.so", "vsmartcard-vpcd"),
    ("libnss_wrapper.so", "libnss-wrapper"),
    ("libopencryptoki.so", "opencryptoki"),
    ("libsofthsm2.so", "softhsm2"),
    ("libsoftokn3.so", "libnss3"),
    ("libtpm2_pkcs11.so", "libtpm2-pkcs11-1"),
    ("opensc-pkcs11.so", "opensc-pkcs11"),
    ("p11-kit-client.so", "p11-kit-modules"),
    ("p11-kit-proxy.so", "p11-kit-modules"),
    ("p11-kit-trust.so", "p11-kit-modules"),
];

/// Where modules lie on Debian and Ubuntu, within a folder of libraries.
const MODULE_FOLDERS: &[&str] = &["softhsm", "pkcs11", "nss", "pcsc/drivers/serial", ""];

/// Folders of libraries on Debian and Ubuntu.
const LIBRARY_FOLDERS: &[&str] = &[
    "/usr/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// A command that runs `name`, found in `PATH` or in the `sbin` folders that users' paths lack.
pub fn command(name: &str) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    Command::new(found.unwrap_or_else(|| missing(name, package(PACKAGES, name))))
}

/// Debian's Python, the one that Debian's `python3-*` packages are for, with the module `needs`.
pub fn python(needs: &str) -> Command {
    const PYTHON: &str = "/usr/bin/python3";
    let imports = Command::new(PYTHON)
        .args(["-c", &format!("import {needs}")])
        .stderr(Stdio::null())
        .status();
    if !imports.is_ok_and(|status| status.success()) {
        missing(
            &format!("{needs} for {PYTHON}"),
            &format!("python3-{needs}"),
        );
    }
    Command::new(PYTHON)
}

/// The path of a PKCS#11 module, or of a library to be loaded before others.
pub fn pkcs11_module(file: &str) -> PathBuf {
    let folders = LIBRARY_FOLDERS.iter().flat_map(|libraries| {
        let libraries = Path::new(libraries);
        MODULE_FOLDERS.iter().map(|folder| libraries.join(folder))
    });
    folders
        .map(|folder| folder.join(file))
        .find(|path| path.is_file())
        .unwrap_or_else(|| missing(file, package(MODULES, file)))
}

/// Runs a command to its end and returns what it printed on stdout; panics with all that it
/// printed if it failed.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed, {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output.stdout
}

fn package(known: &[(&str, &'static str)], name: &str) -> &'static str {
    known
        .iter()
        .find_map(|(part, package)| (*part == name).then_some(*package))
        .unwrap_or_else(|| panic!("tools.rs does not say which Debian package brings {name}"))
}

fn missing(what: &str, package: &str) -> ! {
    panic!("{what} is missing: apt-get install {package}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(
        expected = "msgpack_of_another_world for /usr/bin/python3 is missing: apt-get install python3-"
    )]
    fn a_missing_part_is_named_with_its_package() {
        python("msgpack_of_another_world");
    }

    #[test]
    #[should_panic(expected = "no such file")]
    fn a_failing_tool_shows_what_it_printed() {
        run(command("openssl").args(["x509", "-in", "/no such file"]));
    }
}
