//! A SoftHSM token store in a temporary folder, with tokens and keys in it.
//!
//! The store is found through `SOFTHSM2_CONF`, which is set for child processes only: tests of one
//! process have a store each and do not disturb each other.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    keys::{Key, KeySpec, hex},
    secrets::Secrets,
    tools::{command, pkcs11_module, run},
};

/// A token store, gone when dropped.
pub struct SoftHsm {
    folder: TempDir,
    secrets: Secrets,
}

/// A token in the store. Its slot and serial number tell it from another of the same label.
#[derive(Clone, Debug)]
pub struct Token {
    /// `CKA_LABEL` of the token.
    pub label: String,
    /// The user PIN.
    pub pin: String,
    /// The slot id that SoftHSM gave it.
    pub slot: u64,
    /// The serial number that SoftHSM gave it.
    pub serial: String,
}

impl SoftHsm {
    /// An empty store.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tokens = folder.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(folder.path().join("softhsm2.conf"), configuration).unwrap();
        Self {
            folder,
            secrets: Secrets::default(),
        }
    }

    /// Where its configuration is, and its folder `tokens`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a process needs in its environment to see this store.
    pub fn envs(&self) -> [(&'static str, PathBuf); 1] {
        [("SOFTHSM2_CONF", self.folder.path().join("softhsm2.conf"))]
    }

    /// The PKCS#11 module to load.
    pub fn module(&self) -> PathBuf {
        pkcs11_module("libsofthsm2.so")
    }

    /// The PINs of all tokens that were made here.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Makes a token in a new slot.
    pub fn init_token(&self, label: &str, pin: &str, so_pin: &str) -> Token {
        self.secrets.add(pin);
        self.secrets.add(so_pin);
        let said = run(self
            .command("softhsm2-util")
            .args(["--init-token", "--free", "--label", label])
            .args(["--pin", pin, "--so-pin", so_pin]));
        let slot = slot_of_new_token(&String::from_utf8_lossy(&said));
        Token {
            label: label.into(),
            pin: pin.into(),
            slot,
            serial: self.serial_of(slot),
        }
    }

    /// Makes copies of a token, with all that is on it and its PINs: one for each label, which has as many bytes as the
    /// token's. A token of SoftHSM is a folder, and nothing in it is bound to its label or serial number.
    pub fn copy_token(&self, token: &Token, labels: impl IntoIterator<Item = String>) {
        let tokens = self.folder.path().join("tokens");
        let of_token = |folder: &PathBuf| {
            let token_object = fs::read(folder.join("token.object")).unwrap();
            find(&token_object, token.serial.as_bytes()).is_some()
        };
        let mut folders = fs::read_dir(&tokens).unwrap();
        let original = folders.find_map(|folder| Some(folder.unwrap().path()).filter(of_token));
        let original = original.expect("the token's folder");
        for (number, label) in labels.into_iter().enumerate() {
            let copy = tokens.join(&label);
            fs::create_dir(&copy).unwrap();
            for file in fs::read_dir(&original).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), copy.join(file.file_name())).unwrap();
            }
            let mut token_object = fs::read(copy.join("token.object")).unwrap();
            let serial = format!("{:016x}", 0xc0de_0000 + number);
            for (old, new) in [(&token.label, &label), (&token.serial, &serial)] {
                let at = find(&token_object, old.as_bytes()).expect("label and serial number");
                token_object[at..at + old.len()].copy_from_slice(new.as_bytes());
            }
            fs::write(copy.join("token.object"), token_object).unwrap();
        }
    }

    /// Has the token generate a key pair, so that nobody knows the private half.
    pub fn generate(&self, token: &Token, spec: &KeySpec) -> Key {
        run(self
            .pkcs11_tool(token)
            .args(["--keypairgen", "--key-type", spec.kind.pkcs11_tool_name()])
            .args(["--label", &spec.label, "--id", &hex(&spec.id)]));
        Key {
            spec: spec.clone(),
            spki: self.public_key(token, spec),
        }
    }

    /// Puts a key pair made by openssl into the token. Returns the private half too, in a PEM
    /// file, for the tests that need to know it.
    pub fn import(&self, token: &Token, spec: &KeySpec) -> (Key, PathBuf) {
        let name = format!("{}-{}-{}.pem", token.serial, spec.label, hex(&spec.id));
        let private = self.folder.path().join(name);
        run(command("openssl")
            .arg("genpkey")
            .args(spec.kind.openssl_arguments())
            .arg("-out")
            .arg(&private));
        self.import_pem(token, spec.label.as_bytes(), &spec.id, &private);
        let spki = run(command("openssl")
            .args(["pkey", "-pubout", "-outform", "DER", "-in"])
            .arg(&private));
        let spec = spec.clone();
        (Key { spec, spki }, private)
    }

    /// Puts a certificate (DER) into the token.
    pub fn import_certificate(&self, token: &Token, label: &str, id: &[u8], der: &[u8]) {
        let file = self.folder.path().join("import.der");
        fs::write(&file, der).unwrap();
        run(self
            .pkcs11_tool(token)
            .args(["--type", "cert", "--label", label, "--id", &hex(id)])
            .arg("--write-object")
            .arg(&file));
    }

    /// A command that sees this store.
    pub fn command(&self, tool: &str) -> Command {
        let mut command = command(tool);
        command.envs(self.envs());
        command
    }

    /// `pkcs11-tool`, logged in to the token.
    pub fn pkcs11_tool(&self, token: &Token) -> Command {
        let mut command = self.command("pkcs11-tool");
        command
            .arg("--module")
            .arg(self.module())
            .args(["--slot", &token.slot.to_string()])
            .args(["--login", "--pin", &token.pin]);
        command
    }

    /// `p11tool`, which logs in to the token where it must.
    pub fn p11tool(&self, token: &Token) -> Command {
        let mut command = self.command("p11tool");
        command
            .arg("--provider")
            .arg(self.module())
            .args(["--batch", "--login"])
            .env("GNUTLS_PIN", &token.pin);
        command
    }

    /// The public key of a pair, as SubjectPublicKeyInfo in DER.
    ///
    /// Read with p11tool: pkcs11-tool 0.23 writes P-384 and Ed25519 keys wrongly.
    pub fn public_key(&self, token: &Token, spec: &KeySpec) -> Vec<u8> {
        let file = self.folder.path().join("public.pem");
        let encode = |bytes: &[u8]| -> String {
            let encoded = bytes.iter().map(|byte| format!("%{byte:02X}"));
            encoded.collect()
        };
        run(self
            .p11tool(token)
            .arg("--outfile")
            .arg(&file)
            .arg("--export-pubkey")
            .arg(format!(
                "pkcs11:serial={};id={};object={};type=public",
                token.serial,
                encode(&spec.id),
                encode(spec.label.as_bytes()),
            )));
        run(command("openssl")
            .args(["pkey", "-pubin", "-outform", "DER", "-in"])
            .arg(&file))
    }

    fn serial_of(&self, slot: u64) -> String {
        let slots = run(self.command("softhsm2-util").arg("--show-slots"));
        let slots = String::from_utf8_lossy(&slots);
        slots
            .lines()
            .skip_while(|line| line.trim() != format!("Slot {slot}"))
            .find_map(|line| line.trim().strip_prefix("Serial number:"))
            .unwrap_or_else(|| panic!("slot {slot} is not among: {slots}"))
            .trim()
            .into()
    }
}

impl Default for SoftHsm {
    fn default() -> Self {
        Self::new()
    }
}

impl Token {
    /// The URI that names this token and no other.
    pub fn uri(&self) -> String {
        format!("pkcs11:token={};serial={}", self.label, self.serial)
    }
}

/// Where these bytes stand in others.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// Reads "The token has been initialized and is reassigned to slot 51709180".
fn slot_of_new_token(said: &str) -> u64 {
    said.split_whitespace()
        .next_back()
        .and_then(|slot| slot.parse().ok())
        .unwrap_or_else(|| panic!("no slot number in: {said}"))
}
