//! The name of a program goes in, its path comes out, or a panic that names the Debian package.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Which Debian package brings each program.
const PACKAGES: &[(&str, &str)] = &[
    ("mosquitto", "mosquitto"),
    ("openssl", "openssl"),
    ("p11tool", "gnutls-bin"),
    ("pkcs11-tool", "opensc"),
    ("softhsm2-util", "softhsm2"),
    ("systemd-socket-activate", "systemd"),
];

/// Where SoftHSM's module lies on Debian and Ubuntu.
const SOFTHSM_MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];

/// A command that runs `name`, found in `PATH` or in the `sbin` folders that users' paths lack.
pub fn command(name: &str) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    Command::new(found.unwrap_or_else(|| missing(name, package(name))))
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

/// The path of the PKCS#11 module of SoftHSM.
pub fn softhsm_module() -> PathBuf {
    SOFTHSM_MODULES
        .iter()
        .map(PathBuf::from)
        .find(|path| Path::exists(path))
        .unwrap_or_else(|| missing("libsofthsm2.so", "softhsm2"))
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

fn package(name: &str) -> &'static str {
    PACKAGES
        .iter()
        .find_map(|(tool, package)| (*tool == name).then_some(*package))
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
