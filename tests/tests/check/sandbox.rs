//! What a sandbox keeps from the server, and the machine has: seen by root, from outside.

use std::fs;

use p11_tests::{
    namespace::Namespace,
    server::Server,
    tools::{command, pkcs11_module, run},
};

use super::device::Device;

/// A server for a TPM at a device of the test's own, with its store, in a namespace that a script changes.
fn server(device: &Device, script: &str) -> (Server, tempfile::TempDir, Namespace) {
    let namespace = Namespace::new(&[]);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("store")).unwrap();
    fs::create_dir(folder.path().join("dev")).unwrap();
    fs::write(folder.path().join("dev/tpm"), "").unwrap();
    let mut shell = command("sh");
    shell.args(["-c", script]).current_dir(folder.path());
    run(&mut namespace.enter(&shell));
    let way = format!("device:{}/dev/tpm", folder.path().display());
    let server = Server::builder().module(&pkcs11_module("libtpm2_pkcs11.so"));
    let server = server
        .envs([("TPM2_PKCS11_STORE", folder.path().join("store"))])
        .envs([("TPM2_PKCS11_TCTI", way)])
        .envs([("TPM2_PKCS11_BACKEND", "esysdb")])
        .envs([("TEDGE_CONFIG_DIR", device.folder.path())])
        .within(&namespace)
        .start();
    (server, folder, namespace)
}

#[test]
fn a_device_that_the_sandbox_hides_is_told_with_the_drop_in() {
    let device = Device::new();
    let (server, _folder, _namespace) = server(&device, "mount -t tmpfs none dev");
    device.check_at(server.socket(), &[]).fails(
        "module",
        6,
        &[
            "/dev/tpm is there, but not in the sandbox of the server",
            "The server says: ",
            "do this:",
            "mkdir -p /etc/systemd/system/tedge-p11-server.service.d",
            "printf '[Service]\\nPrivateDevices=no\\nDeviceAllow=",
            ">/etc/systemd/system/tedge-p11-server.service.d/tpm.conf",
            "systemctl daemon-reload; systemctl restart tedge-p11-server",
        ],
    );
}

#[test]
fn a_store_that_the_sandbox_has_read_only_is_told_with_the_drop_in() {
    let device = Device::new();
    let script = "mount --bind store store && mount -o remount,ro,bind store";
    let (server, _folder, _namespace) = server(&device, script);
    device.check_at(server.socket(), &[]).fails(
        "module",
        6,
        &[
            "/store is there, but the sandbox of the server has it read-only",
            "ReadWritePaths=-",
            "store.conf",
        ],
    );
}
