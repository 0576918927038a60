//! What is wrong with files, while no server runs: tedge.toml, and the PKCS#11 module.

use std::{fs, path::Path};

use p11_tests::{fixture::KEY, text::assert_in_order, tools::pkcs11_module};

use super::device::{Device, check};

/// A socket where nothing is.
const NOWHERE: &str = "/nonexistent/p11.sock";

#[test]
fn a_tedge_toml_that_cannot_be_used_is_told_by_its_line() {
    let device = Device::new();
    let cases = [
        ("[device]\nkey_uri = pkcs11:\n", "line 2 is no valid TOML"),
        (
            "[device.cryptoki]\npin = 123456\n",
            "device.cryptoki.pin must be text: pin = \"...\"",
        ),
        (
            "[device.cryptoki]\nmode = \"sockets\"\n",
            "device.cryptoki.mode must be \"off\", \"module\" or \"socket\"",
        ),
        (
            "device = \"gw-0001\"\n",
            "device of device.cryptoki.mode must be a table",
        ),
        (
            "[device]\nkey_uri = \"pkcs11:token=a b\"\n",
            "device.key_uri cannot be used",
        ),
        (
            "[device]\nkey_uri = \"pkcs11:token=device;label=key\"\n",
            "device.key_uri: `label=…` is no attribute that a token or object has; write `object=…`",
        ),
        (
            "[device]\nkey_uri = \"pkcs11:pin-value=1;token=a\"\n",
            "device.key_uri cannot be used",
        ),
    ];
    for (text, words) in cases {
        device.write_toml(text);
        device
            .check_at(NOWHERE.as_ref(), &[])
            .fails("configuration", 2, &[words]);
    }
    fs::remove_file(device.toml()).unwrap();
    fs::create_dir(device.toml()).unwrap();
    device.check_at(NOWHERE.as_ref(), &[]).fails(
        "configuration",
        2,
        &["tedge.toml\" cannot be read", "directory"],
    );
}

#[test]
fn a_tedge_toml_that_broke_while_the_server_runs_is_a_warning() {
    let device = Device::new();
    let server = device.in_use();
    device.write_toml("[device\n");
    let told = device.check(&server, &[]);
    assert_eq!(told.result("configuration"), "warning", "{}", told.text);
    assert_in_order(
        &told.text,
        [
            "the server works all the same, for now",
            "warning: ",
            "line 1 is no valid TOML",
        ],
    );
    assert_eq!(told.code, 0, "{}", told.text);
}

#[test]
fn a_mode_with_which_tedge_does_not_ask_the_server_is_a_warning() {
    let device = Device::new();
    let server = device.in_use();
    let told = |mode: &str, programs: &Path| {
        device.write_toml(&format!(
            "[device]\nkey_uri = \"{KEY}\"\n[device.cryptoki]\nmode = \"{mode}\"\n"
        ));
        check(&[("PATH", programs)], |check| {
            check.arg("--socket-path").arg(server.socket());
            check.arg("--config-dir").arg(device.folder.path());
        })
    };
    let programs = tempfile::tempdir().unwrap();
    let words = "tedge config set device.cryptoki.mode socket";
    told("module", programs.path()).warns(
        "configuration",
        &["device.cryptoki.mode is \"module\"", words],
    );
    // Another program than thin-edge needs no mode.
    assert_eq!(told("off", programs.path()).result("configuration"), "ok");
    fs::write(programs.path().join("tedge"), "").unwrap();
    told("off", programs.path())
        .warns("configuration", &["device.cryptoki.mode is \"off\"", words]);
}

/// A copy of SoftHSM's module in which some bytes are others.
fn changed_module(folder: &Path, from: &[u8], to: &[u8]) -> std::path::PathBuf {
    let mut bytes = fs::read(pkcs11_module("libsofthsm2.so")).unwrap();
    let places: Vec<_> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from)
        .map(|(place, _)| place)
        .collect();
    assert!(!places.is_empty(), "no such bytes");
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to);
    }
    let file = folder.join("libsofthsm2.so");
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn a_module_that_cannot_be_loaded_is_told_by_its_file() {
    let device = Device::new();
    let folder = tempfile::tempdir().unwrap();
    let told = |module: &Path, words: &[&str]| {
        device.set_toml("", &format!("module_path = {module:?}"));
        device
            .check_at(NOWHERE.as_ref(), &[])
            .fails("module file", 6, words);
    };
    let installed = pkcs11_module("libsofthsm2.so");
    let installed = installed.to_str().unwrap();
    let offered = [
        "On this machine are:",
        "tedge config set device.cryptoki.module_path",
    ];
    let missing = "there is no /usr/lib/softhsm/libsofthsm.so";
    told(
        "/usr/lib/softhsm/libsofthsm.so".as_ref(),
        &[missing, offered[0], installed, offered[1]],
    );
    told(
        "libsofthsm2.so".as_ref(),
        &["libsofthsm2.so has no absolute path", installed, offered[1]],
    );
    let text = folder.path().join("module.so");
    fs::write(&text, "a text").unwrap();
    told(&text, &["is no shared library", installed]);

    // The header of an x86-64 library, up to its machine.
    let header = fs::read(installed).unwrap()[..20].to_vec();
    let mut other = header.clone();
    other[18..20].copy_from_slice(&[183, 0]);
    let file = changed_module(folder.path(), &header, &other);
    told(
        &file,
        &["is built for aarch64 (64 bits), this machine is x86_64"],
    );
    let file = changed_module(folder.path(), b"libcrypto.so.3", b"libcrypto.so.9");
    told(
        &file,
        &[
            "needs libcrypto.so.9, which is not installed",
            "apt-file search libcrypto.so.9",
        ],
    );
    let file = changed_module(folder.path(), b"C_GetFunctionList", b"C_GetFunctionLost");
    told(
        &file,
        &["is no PKCS#11 module: it has no C_GetFunctionList"],
    );

    device.set_toml("", &format!("module_path = {installed:?}"));
    device
        .check_at(NOWHERE.as_ref(), &[])
        .fails("socket", 5, &["there is no socket"]);
}
