//! openCryptoki: its software token, and its daemon pkcsslotd.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use p11_client::{
    ErrorCode,
    message::{KeySpec, KeyType},
};
use p11_fault_module::Faults;
use p11_tests::{
    client::refused,
    namespace::Namespace,
    process::Process,
    server::Server,
    tools::{command, pkcs11_module, run},
    wait::wait_until,
};
use tempfile::TempDir;

use crate::{
    PIN, SO_PIN,
    life::{EVERY_KIND, Life},
    load::failures_during,
    page::assert_told,
};

const MODULE: &str = "libopencryptoki.so";
/// The group of those who may use it, which its package makes.
const GROUP: &str = "pkcs11";

/// A token of its own, with the daemon that it wants.
struct Opencryptoki {
    daemon: Process,
    namespace: Namespace,
    _folder: TempDir,
}

impl Opencryptoki {
    /// With the token `device`.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (etc, lib) = (folder.path().join("etc"), folder.path().join("lib"));
        fs::create_dir(&etc).unwrap();
        let slot = "version opencryptoki-3.8\nslot 0\n{\nstdll = libpkcs11_sw.so\n}\n";
        fs::write(etc.join("opencryptoki.conf"), slot).unwrap();
        let namespace = Namespace::new(&[
            (&etc, "/etc/opencryptoki"),
            (make_store(&lib), "/var/lib/opencryptoki"),
        ]);
        let mut locks = namespace.command("install");
        run(locks
            .args(["--directory", "--mode=770", "--group", GROUP])
            .args(["/run/lock/opencryptoki", "/run/lock/opencryptoki/swtok"]));
        let opencryptoki = Self {
            daemon: start(&namespace),
            namespace,
            _folder: folder,
        };
        opencryptoki.init_token();
        opencryptoki
    }

    /// The security officer's PIN of a new token is the same everywhere.
    fn init_token(&self) {
        let tool = || {
            let mut tool = self.namespace.command("pkcs11-tool");
            tool.arg("--module").arg(pkcs11_module(MODULE));
            tool.args(["--slot", "0"]);
            tool
        };
        run(tool().args(["--init-token", "--label", "device", "--so-pin", "87654321"]));
        let so = ["--login", "--login-type", "so"];
        run(tool().args(so).args(["--so-pin", "87654321"]).args([
            "--change-pin",
            "--new-pin",
            SO_PIN,
        ]));
        run(tool()
            .args(so)
            .args(["--so-pin", SO_PIN])
            .args(["--init-pin", "--new-pin", PIN]));
    }

    fn server(&self, faults: &Faults) -> Server {
        let server = Server::builder()
            .module(&Faults::module_path())
            .envs(faults.envs())
            .pin(PIN)
            .within(&self.namespace)
            .start();
        server.secrets().add(SO_PIN);
        server
    }

    /// Kills it, since it does not end otherwise while it has clients.
    fn restart_daemon(&mut self) {
        self.daemon.kill();
        self.daemon = start(&self.namespace);
    }
}

/// The folders that the package makes, for its group.
fn make_store(lib: &Path) -> &Path {
    fs::create_dir_all(lib.join("swtok/TOK_OBJ")).unwrap();
    for folder in ["", "swtok", "swtok/TOK_OBJ"].map(|folder| lib.join(folder)) {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        run(command("chgrp").arg(GROUP).arg(folder));
    }
    lib
}

fn start(namespace: &Namespace) -> Process {
    let socket = "/run/pkcsslotd.socket";
    run(namespace.command("rm").args(["-f", socket]));
    let mut daemon = namespace.command("pkcsslotd");
    daemon.arg("-f");
    let daemon = Process::start("pkcsslotd", daemon);
    wait_until(|| {
        let mut test = namespace.command("test");
        test.args(["-S", socket]).status().unwrap().success()
    });
    daemon
}

#[test]
fn opencryptoki_plays_its_life() {
    let opencryptoki = Opencryptoki::new();
    let faults = Faults::new(pkcs11_module(MODULE));
    let server = opencryptoki.server(&faults);
    let life = Life {
        server: &server,
        faults: &faults,
        token: "device",
        keys: &[],
        kinds: &EVERY_KIND,
    };
    assert_told(
        "openCryptoki, software token",
        &["opencryptoki"],
        &life.play(),
    );
}

#[test]
fn keys_of_opencryptoki_sign_while_its_daemon_is_killed_and_restarted() {
    let mut opencryptoki = Opencryptoki::new();
    let faults = Faults::new(pkcs11_module(MODULE));
    let server = opencryptoki.server(&faults);
    let client = server.client();
    let rsa = KeySpec::new(KeyType::Rsa, 2048);
    let made = client.create_key("pkcs11:token=device", rsa, "key", None);
    let key = client.open(&made.unwrap().uri).unwrap();
    for _ in 0..2 {
        let failed = failures_during(&key, || opencryptoki.restart_daemon());
        assert_eq!(failed, []);
    }
}

#[test]
fn the_token_of_opencryptoki_is_found_when_its_daemon_comes_up_after_the_server() {
    let mut opencryptoki = Opencryptoki::new();
    opencryptoki.daemon.kill();
    let faults = Faults::new(pkcs11_module(MODULE));
    let server = opencryptoki.server(&faults);
    let list = || server.client().list_keys("pkcs11:token=device");
    refused(list(), ErrorCode::ModuleUnavailable);
    opencryptoki.restart_daemon();
    wait_until(|| list().is_ok());
}
