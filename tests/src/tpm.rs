//! A software TPM, with tokens and keys of tpm2-pkcs11 in it.
//!
//! Three programs make it, each for this TPM alone: `swtpm` on two loopback ports, the resource manager
//! `tpm2-abrmd` (without it the TPM serves one client at a time), and a `dbus-daemon`, over which clients
//! reach that.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    ports::two_free_ports,
    process::Process,
    secrets::Secrets,
    tools::{command, pkcs11_module, run},
    wait::{TIMEOUT, is_soon},
};

/// A running TPM. Dropping it stops what it consists of.
pub struct Tpm {
    // In this order they are stopped.
    shared: Option<Shared>,
    tpm: Process,
    port: u16,
    folder: TempDir,
    secrets: Secrets,
}

/// What several clients reach a TPM by.
struct Shared {
    resource_manager: Process,
    _bus: Process,
}

impl Tpm {
    /// A TPM that has not seen anything yet, and an empty store for what tpm2-pkcs11 keeps beside it.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("tpm")).unwrap();
        let (tpm, port) = start_swtpm(folder.path());
        let bus = start_bus(folder.path());
        let shared = Some(Shared {
            resource_manager: start_resource_manager(folder.path(), port),
            _bus: bus,
        });
        let store = folder.path().join("store");
        fs::create_dir(&store).unwrap();
        let tpm = Self {
            shared,
            tpm,
            port,
            folder,
            secrets: Secrets::default(),
        };
        run(&mut tpm.ptool("init"));
        tpm
    }

    /// What a process needs in its environment to see this TPM.
    pub fn envs(&self) -> [(&'static str, OsString); 5] {
        let way = match &self.shared {
            Some(_) => OsString::from("tabrmd:bus_type=session"),
            None => swtpm_at(self.port).into(),
        };
        [
            (
                "DBUS_SESSION_BUS_ADDRESS",
                address(self.folder.path()).into(),
            ),
            ("TPM2_PKCS11_STORE", self.store().into()),
            ("TPM2_PKCS11_BACKEND", "esysdb".into()),
            ("TPM2_PKCS11_TCTI", way.clone()),
            ("TPM2TOOLS_TCTI", way),
        ]
    }

    /// The PKCS#11 module to load.
    pub fn module(&self) -> PathBuf {
        pkcs11_module("libtpm2_pkcs11.so")
    }

    /// The PINs of all tokens that were made here.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Makes a token.
    pub fn init_token(&self, label: &str, pin: &str, so_pin: &str) {
        self.secrets.add(pin);
        self.secrets.add(so_pin);
        run(self
            .ptool("addtoken")
            .args(["--pid", "1", "--label", label])
            .args(["--userpin", pin, "--sopin", so_pin]));
    }

    /// Has the TPM generate a key pair of a kind as tpm2_ptool names it (`ecc256`, `rsa2048`). Returns
    /// its public key, as SubjectPublicKeyInfo in DER.
    pub fn generate(&self, token: &str, pin: &str, algorithm: &str, label: &str) -> Vec<u8> {
        run(self
            .ptool("addkey")
            .args(["--algorithm", algorithm, "--key-label", label])
            .args(["--label", token, "--userpin", pin]));
        let pem = self.folder.path().join("public.pem");
        run(self
            .command("p11tool")
            .arg("--provider")
            .arg(self.module())
            .env("GNUTLS_PIN", pin)
            .args(["--batch", "--login", "--export-pubkey", "--outfile"])
            .arg(&pem)
            .arg(format!("pkcs11:token={token};object={label};type=public")));
        run(command("openssl")
            .args(["pkey", "-pubin", "-outform", "DER", "-in"])
            .arg(&pem))
    }

    /// Takes all keys off a token, behind the back of the module.
    pub fn delete_keys(&self, token: &str) {
        let listed = run(self.ptool("listobjects").args(["--label", token]));
        let listed = String::from_utf8(listed).unwrap();
        let ids = listed.lines().filter_map(|line| line.split_once("id: "));
        let ids = ids.filter(|(before, _)| before.trim_matches([' ', '-']).is_empty());
        for (_, id) in ids {
            run(self.ptool("objdel").arg(id.trim_matches('\'')));
        }
    }

    /// How many wrong PINs the TPM counts against its limit.
    pub fn lockout_counter(&self) -> u32 {
        let said = run(self.command("tpm2_getcap").arg("properties-variable"));
        let said = String::from_utf8_lossy(&said);
        let counter = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("TPM2_PT_LOCKOUT_COUNTER: 0x"))
            .unwrap_or_else(|| panic!("no counter in {said}"));
        u32::from_str_radix(counter, 16).unwrap()
    }

    /// Ends the resource manager, with all that it knows of its clients, and starts another.
    pub fn restart_resource_manager(&mut self) {
        self.stop_resource_manager();
        self.start_resource_manager();
    }

    /// Ends the resource manager.
    pub fn stop_resource_manager(&mut self) {
        let shared = self.shared.as_mut().expect("a resource manager");
        shared.resource_manager.terminate();
    }

    /// Starts another one.
    pub fn start_resource_manager(&mut self) {
        let shared = self.shared.as_mut().expect("a resource manager");
        shared.resource_manager = start_resource_manager(self.folder.path(), self.port);
    }

    /// The same TPM without a resource manager: it serves one program at a time, and no more than a few keys that this
    /// has loaded, so tokens are made before.
    pub fn straight(mut self) -> Self {
        self.shared = None;
        self.restart();
        self
    }

    /// Takes the power from the TPM, which forgets what it has loaded, and gives it back.
    pub fn restart(&mut self) {
        self.tpm.terminate();
        let tpm = start_swtpm_at(self.folder.path(), self.port);
        self.tpm = tpm.expect("the same ports are free again");
    }

    /// Another program uses up all tries, until the TPM is in its lockout.
    pub fn lock_out(&self) {
        let one_try = [
            "--setup-parameters",
            "--max-tries=1",
            "--recovery-time=1000",
        ];
        run(self.command("tpm2_dictionarylockout").args(one_try));
    }

    /// A command that sees this TPM.
    pub fn command(&self, tool: &str) -> Command {
        let mut command = command(tool);
        command.envs(self.envs());
        command
    }

    fn ptool(&self, what: &str) -> Command {
        let mut ptool = self.command("tpm2_ptool");
        ptool.arg(what).arg("--path").arg(self.store());
        ptool
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }
}

impl Default for Tpm {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts `swtpm`, which serves one client on the port that is returned, and takes control messages on
/// the next one.
fn start_swtpm(folder: &Path) -> (Process, u16) {
    // Another program may take the ports before swtpm does.
    for _ in 0..10 {
        let port = two_free_ports();
        if let Some(process) = start_swtpm_at(folder, port) {
            return (process, port);
        }
    }
    panic!("swtpm finds no two free ports")
}

fn start_swtpm_at(folder: &Path, port: u16) -> Option<Process> {
    // Written when both ports are open, and removed at the end.
    let ready = folder.join("swtpm.pid");
    let channel = |port| format!("type=tcp,bindaddr=127.0.0.1,port={port}");
    let mut swtpm = command("swtpm");
    swtpm
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .args(["--server", &channel(port), "--ctrl", &channel(port + 1)])
        .arg("--tpmstate")
        .arg(format!("dir={}", folder.join("tpm").display()))
        .arg("--pid")
        .arg(format!("file={}", ready.display()));
    let mut process = Process::start("swtpm", swtpm);
    let is_ready = is_soon(|| ready.exists() || !process.is_running()) && process.is_running();
    is_ready.then_some(process)
}

/// What leads a client to it (TCTI).
fn swtpm_at(port: u16) -> String {
    format!("swtpm:host=127.0.0.1,port={port}")
}

fn start_bus(folder: &Path) -> Process {
    let mut bus = command("dbus-daemon");
    bus.args(["--session", "--nofork", "--print-address", "--address"])
        .arg(address(folder));
    let bus = Process::start("dbus-daemon", bus);
    bus.wait_for_log("unix:path=", TIMEOUT);
    bus
}

fn start_resource_manager(folder: &Path, port: u16) -> Process {
    let mut manager = command("tpm2-abrmd");
    manager
        .args(["--session", "--allow-root"])
        .arg(format!("--tcti={}", swtpm_at(port)))
        .env("DBUS_SESSION_BUS_ADDRESS", address(folder));
    let manager = Process::start("tpm2-abrmd", manager);
    let is_on_bus = || {
        let answer = run(command("dbus-send")
            .arg(format!("--bus={}", address(folder)))
            .args(["--print-reply", "--dest=org.freedesktop.DBus", "/"])
            .arg("org.freedesktop.DBus.NameHasOwner")
            .arg("string:com.intel.tss2.Tabrmd"));
        String::from_utf8_lossy(&answer).contains("boolean true")
    };
    assert!(
        is_soon(is_on_bus),
        "tpm2-abrmd does not appear on the bus; it said:\n{}",
        manager.log()
    );
    manager
}

fn address(folder: &Path) -> String {
    format!("unix:path={}", folder.join("bus").display())
}
