//! A token with a key, and a server that loads a module which misbehaves on demand.
//!
//! ```no_run
//! use p11_fault_module::{Function::C_Sign, cryptoki_sys::CKR_DEVICE_ERROR, on};
//! use p11_tests::{fixture::{Fixture, KEY}, keys::KeyKind};
//!
//! let fixture = Fixture::new(KeyKind::P256);
//! let server = fixture.start();
//! let key = server.client().open(KEY).unwrap();
//! fixture.faults.set([on(C_Sign).next(1).returns(CKR_DEVICE_ERROR)]);
//! key.sign().unwrap(); // and the signature was verified
//! ```

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command, thread, time::Duration};

use p11_fault_module::{
    Faults,
    Function::{C_FindObjectsInit, C_GetAttributeValue},
    Pin,
    cryptoki_sys::*,
};

use crate::{
    client::ClientKey,
    keys::{Key, KeyKind, KeySpec},
    pki::certificate_for,
    server::{Builder, Server},
    softhsm::{SoftHsm, Token},
};

/// The user PIN of each token of a fixture. No six digits: a busy server's log has timestamps with them.
pub const PIN: &str = "open-sesame";
/// The security officer's PIN of each token of a fixture.
pub const SO_PIN: &str = "open-barley";
/// What leads to the key of a new fixture.
pub const KEY: &str = "pkcs11:token=device;object=key";

/// Every code that stands for trouble which may pass.
pub const TROUBLE: [CK_RV; 10] = [
    CKR_DEVICE_ERROR,
    CKR_GENERAL_ERROR,
    CKR_FUNCTION_FAILED,
    CKR_DEVICE_REMOVED,
    CKR_DEVICE_MEMORY,
    CKR_HOST_MEMORY,
    CKR_SESSION_HANDLE_INVALID,
    CKR_SESSION_CLOSED,
    CKR_OPERATION_ACTIVE,
    CKR_USER_NOT_LOGGED_IN,
];

/// A token store and the faults of the module that is loaded in place of SoftHSM.
pub struct Fixture {
    /// Where tokens and keys are made, by SoftHSM itself, which knows of no faults.
    pub hsm: SoftHsm,
    /// What goes wrong in the server.
    pub faults: Faults,
    /// The token `device`.
    pub token: Token,
    /// The key `key` in it, of id 1.
    pub key: Key,
}

impl Fixture {
    /// A token with one key, and no faults yet.
    pub fn new(kind: KeyKind) -> Self {
        let hsm = SoftHsm::new();
        let token = hsm.init_token("device", PIN, SO_PIN);
        let key = hsm.generate(&token, &KeySpec::new(kind, "key", &[1]));
        let faults = Faults::new(hsm.module());
        Self {
            hsm,
            faults,
            token,
            key,
        }
    }

    /// A token with a P-256 key, and a running server with its PIN.
    pub fn started() -> (Self, Server) {
        let fixture = Self::new(KeyKind::P256);
        let server = fixture.start();
        (fixture, server)
    }

    /// The same, where the server has signed once with the key, so that sessions, login and handles are there.
    pub fn steady() -> (Self, Server, ClientKey) {
        Self::new(KeyKind::P256).with(Self::start)
    }

    /// The same with the server that waits seconds for what takes the real one half a minute.
    pub fn steady_quick() -> (Self, Server, ClientKey) {
        Self::new(KeyKind::P256).with(Self::start_quick)
    }

    fn with(self, start: fn(&Self) -> Server) -> (Self, Server, ClientKey) {
        let server = start(&self);
        let key = server.client().open(KEY).unwrap();
        key.sign().unwrap();
        (self, server, key)
    }

    /// One more token, with a P-256 key `key` of id 1 too.
    pub fn add_token(&self, label: &str) -> (Token, Key) {
        let token = self.hsm.init_token(label, PIN, SO_PIN);
        let key = self
            .hsm
            .generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
        (token, key)
    }

    /// One more key in the token `device`.
    pub fn add_key(&self, kind: KeyKind, label: &str, id: u8) -> Key {
        let spec = KeySpec::new(kind, label, &[id]);
        self.hsm.generate(&self.token, &spec)
    }

    /// A certificate for the key `key`, in DER.
    pub fn certificate(&self) -> Vec<u8> {
        certificate_for(&self.key.spki)
    }

    /// Stores a certificate beside the key `key`, with its label and id.
    pub fn store_certificate(&self) {
        let certificate = self.certificate();
        self.hsm
            .import_certificate(&self.token, "key", &[1], &certificate);
    }

    /// Whether another program can log in to a token with this PIN.
    pub fn takes_pin(&self, label: &str, pin: &str) -> bool {
        let mut tool = self.hsm.command("pkcs11-tool");
        tool.arg("--module").arg(self.hsm.module());
        log_in(&mut tool, label, pin)
    }

    /// The same for the security officer's PIN, with which the user's PIN is set.
    pub fn takes_so_pin(&self, label: &str, so_pin: &str, pin: &str) -> bool {
        let mut tool = self.hsm.command("pkcs11-tool");
        tool.arg("--module").arg(self.hsm.module());
        set_pin(&mut tool, label, so_pin, pin)
    }

    /// Another program logs in to the token `device` through the module that counts tries; whether it can.
    pub fn tries_pin(&self, whose: Pin, pin: &str) -> bool {
        let mut tool = self.hsm.command("pkcs11-tool");
        tool.arg("--module").arg(Faults::module_path());
        tool.envs(self.faults.envs());
        match whose {
            Pin::User => log_in(&mut tool, "device", pin),
            Pin::So => set_pin(&mut tool, "device", pin, "999999"),
        }
    }

    /// Fills the token with key pairs of another label, until it holds this many objects.
    pub fn fill(&self, objects: usize) {
        let before = self.object_files();
        self.add_key(KeyKind::P256, "other", 2);
        let pair: Vec<_> = self.object_files().difference(&before).cloned().collect();
        // SoftHSM takes every file of this name for an object, and none knows its own name.
        for (number, file) in (before.len() + pair.len()..objects).zip(pair.iter().cycle()) {
            // Without the lock beside it, it could not be deleted.
            for kind in ["object", "lock"] {
                let copy = file.with_file_name(format!("copy-{number}.{kind}"));
                fs::copy(file.with_extension(kind), copy).unwrap();
            }
        }
        assert_eq!(self.object_files().len(), objects);
    }

    fn object_files(&self) -> BTreeSet<PathBuf> {
        let [(_, configuration)] = self.hsm.envs();
        let tokens = configuration.with_file_name("tokens");
        let mut folders = fs::read_dir(tokens).unwrap();
        let token = folders.next().expect("one token").unwrap().path();
        assert!(folders.next().is_none(), "only a single token is filled");
        let files = fs::read_dir(token)
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .filter(|file| file.extension() == Some("object".as_ref()))
            .filter(|file| file.file_name() != Some("token.object".as_ref()))
            .collect()
    }

    /// A server that loads the faulty module and has no PIN yet.
    pub fn server(&self) -> Builder {
        Server::builder().softhsm_with_faults(&self.hsm, &self.faults)
    }

    /// A running server with the right PIN.
    pub fn start(&self) -> Server {
        self.server().pin(PIN).start()
    }

    /// The same, of the server that waits seconds for what takes the real one half a minute.
    pub fn start_quick(&self) -> Server {
        self.server().pin(PIN).quick().start()
    }
}

/// A signature after some idleness costs two calls more than others and no search, if a quick server makes it.
pub fn assert_no_search_after_idleness(faults: &Faults, key: &ClientKey) {
    for _ in 0..2 {
        // Longer than a handle is believed in.
        thread::sleep(Duration::from_millis(1200));
        let before = faults.counts();
        key.sign().unwrap();
        let calls = faults.counts().since(&before);
        assert!(calls.total() <= 4, "{calls}");
        assert_eq!(calls.of(C_FindObjectsInit), 0, "{calls}");
        assert!(calls.of(C_GetAttributeValue) > 0, "{calls}");
    }
}

fn log_in(tool: &mut Command, label: &str, pin: &str) -> bool {
    tool.args(["--token-label", label, "--login", "--pin", pin]);
    succeeds(tool.arg("--list-objects"))
}

fn set_pin(tool: &mut Command, label: &str, so_pin: &str, pin: &str) -> bool {
    tool.args(["--token-label", label, "--login", "--so-pin", so_pin]);
    succeeds(tool.args(["--init-pin", "--new-pin", pin]))
}

fn succeeds(command: &mut Command) -> bool {
    command.output().unwrap().status.success()
}
