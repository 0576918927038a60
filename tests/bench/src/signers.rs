//! The candidates: ways to sign, each of which can open one more client of its kind.

use std::ffi::OsStr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use p11_client::message::{OpenKey, Sign};
use p11_client::{Client, Config};
use p11_tests::tools::pkcs11_module;
use p11_tests::wait::wait_for_listener;
use tempfile::TempDir;

use crate::bare;
use crate::pkcs11::Module;

pub use p11_tests::fixture::PIN;

/// What leads to the key.
pub const KEY: &str = "pkcs11:token=device;object=key";

/// Makes one signature.
pub type Signer = Box<dyn FnMut() + Send>;

/// A way to sign.
pub struct Candidate {
    /// What it is called in the table.
    pub name: &'static str,
    /// One more client.
    pub open: Box<dyn Fn() -> Signer>,
}

/// A message, and what raw PKCS#11 signs in its place.
pub const MESSAGE: &[u8] = &[7; 130];
const DIGEST: [u8; 32] = [7; 32];

/// A server of ours, gone when dropped.
pub struct Ours {
    child: Child,
    folder: TempDir,
    _idle: Vec<UnixStream>,
}

impl Ours {
    /// Starts the release binary with a module, an environment in addition to ours, and connections
    /// that stay open and silent.
    pub fn start(module: &Path, environment: &[(&str, &OsStr)], idle: usize) -> Ours {
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(binary())
            .args(["--max-connections", "512"])
            .args(["--max-connections-per-user", "512"])
            .arg("--module-path")
            .arg(module)
            .arg("--socket-path")
            .arg(folder.path().join("socket"))
            .env("TEDGE_DEVICE_CRYPTOKI_PIN", PIN)
            .envs(environment.iter().copied())
            .stderr(log)
            .spawn()
            .unwrap();
        wait_for_listener(&folder.path().join("socket"));
        let connect = |_| UnixStream::connect(folder.path().join("socket")).unwrap();
        let _idle = (0..idle).map(connect).collect();
        Ours {
            child,
            folder,
            _idle,
        }
    }

    /// With SoftHSM, on a token store.
    pub fn on_softhsm(configuration: &Path, idle: usize) -> Ours {
        let store = [("SOFTHSM2_CONF", configuration.as_os_str())];
        Ours::start(&pkcs11_module("libsofthsm2.so"), &store, idle)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Clients of this server.
    pub fn candidate(&self, name: &'static str) -> Candidate {
        let socket = self.socket();
        Candidate {
            name,
            open: Box::new(move || {
                let client = Client::new(Config::new(&socket));
                let open = OpenKey::new(KEY);
                let key = client.open_key(open).unwrap();
                Box::new(move || {
                    let sign = Sign::new(key.uri.as_str(), 0x0403, MESSAGE.to_vec(), key.identity);
                    client.sign(sign).unwrap();
                })
            }),
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All candidates on one token store, which this process sees too.
pub struct Setup {
    /// Our server.
    pub ours: Ours,
    /// SoftHSM in this process.
    pub raw: Module,
    /// SoftHSM in the process of `p11-kit server`.
    pub p11_kit: Module,
    bare: Child,
    folder: TempDir,
}

impl Setup {
    /// Starts everything.
    pub fn new(configuration: &Path) -> Setup {
        let softhsm = pkcs11_module("libsofthsm2.so");
        let folder = tempfile::tempdir().unwrap();
        let bare = Command::new(std::env::current_exe().unwrap())
            .arg("bare-server")
            .arg(folder.path().join("bare"))
            .arg(&softhsm)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        wait_for_listener(&folder.path().join("bare"));
        Setup {
            ours: Ours::on_softhsm(configuration, 0),
            raw: Module::load(&softhsm),
            p11_kit: Module::load(&pkcs11_module("p11-kit-client.so")),
            bare,
            folder,
        }
    }

    /// The candidates: raw first, then what is out of process.
    pub fn candidates(&self) -> Vec<Candidate> {
        let socket: Arc<Path> = self.folder.path().join("bare").into();
        let bare = Candidate {
            name: "bare signer",
            open: Box::new(move || {
                let mut client = bare::Client::connect(&socket);
                Box::new(move || _ = client.sign(&DIGEST))
            }),
        };
        vec![
            in_process("raw C_Sign", self.raw),
            bare,
            self.ours.candidate("ours"),
            in_process("p11-kit", self.p11_kit),
        ]
    }

    /// The bare signer over a new connection each: what a Ping is to it, and a signature.
    pub fn bare_connections(&self) -> [Candidate; 2] {
        let socket: Arc<Path> = self.folder.path().join("bare.each").into();
        let asking = |name, message| {
            let socket = socket.clone();
            Candidate {
                name,
                open: Box::new(move || {
                    let socket = socket.clone();
                    Box::new(move || _ = bare::Client::connect(&socket).sign(message))
                }),
            }
        };
        [
            asking("Ping, bare signer", &bare::PING),
            asking("signature, bare signer", &DIGEST),
        ]
    }
}

/// A module in this process.
pub fn in_process(name: &'static str, module: Module) -> Candidate {
    Candidate {
        name,
        open: Box::new(move || {
            let mut signer = module.signer(PIN);
            Box::new(move || _ = signer.sign(&DIGEST))
        }),
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = self.bare.kill();
        let _ = self.bare.wait();
    }
}

/// The stripped release build of our server, beside this program.
pub fn binary() -> PathBuf {
    let path = std::env::current_exe()
        .unwrap()
        .with_file_name("tedge-p11-server");
    assert!(
        path.exists(),
        "{} is missing: run me by `make bench`",
        path.display()
    );
    path
}
