//! Objects in SoftHSM that no key generator makes: halves of a pair that are missing or named apart, a key that
//! may not sign, one that needs no login, and keys of any kind and name.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use p11_client::message::Class;

use crate::{
    keys::{Key, KeyKind, KeySpec, hex},
    softhsm::{SoftHsm, Token},
    tools::{command, run},
};

impl SoftHsm {
    /// Has the token generate a pair of any kind that `pkcs11-tool --key-type` takes, of any label and id.
    pub fn generate_any(&self, token: &Token, kind: &str, label: &[u8], id: &[u8]) {
        let mut tool = self.pkcs11_tool(token);
        tool.args(["--keypairgen", "--key-type", kind]);
        if !label.is_empty() {
            tool.arg("--label").arg(OsStr::from_bytes(label));
        }
        if !id.is_empty() {
            tool.args(["--id", &hex(id)]);
        }
        run(&mut tool);
    }

    /// Puts a pair that openssl has made into the token, with a label of at least one byte and an id, in use or not.
    pub fn import_pem(&self, token: &Token, label: &[u8], id: &[u8], private: &Path) {
        run(self
            .command("softhsm2-util")
            .args(["--slot", &token.slot.to_string(), "--pin", &token.pin])
            .arg("--label")
            .arg(OsStr::from_bytes(label))
            .args(["--force", "--id", &hex(id), "--import"])
            .arg(private));
    }

    /// Deletes one object by its id.
    pub fn delete(&self, token: &Token, class: Class, id: &[u8]) {
        let class = match class {
            Class::Private => "privkey",
            Class::Public => "pubkey",
            other => panic!("no half of a key pair: {other}"),
        };
        run(self
            .pkcs11_tool(token)
            .args(["--delete-object", "--type", class, "--id", &hex(id)]));
    }

    /// Stores a public key (P-256 or RSA), under whatever label and id.
    pub fn store_public_key(&self, token: &Token, label: &str, id: &[u8], spki: &[u8]) {
        let file = self.file("public.der");
        fs::write(&file, spki).unwrap();
        run(self
            .pkcs11_tool(token)
            .args(["--type", "pubkey", "--label", label, "--id", &hex(id)])
            .arg("--write-object")
            .arg(&file));
    }

    /// Stores a P-256 pair whose private half may decrypt and not sign (`CKA_SIGN` is false).
    pub fn store_pair_that_cannot_sign(&self, token: &Token, label: &str, id: &[u8]) -> Key {
        self.store_pair(token, label, id, &["--mark-decrypt"])
    }

    /// Stores a P-256 pair whose private half can be used without a login (`CKA_PRIVATE` is false).
    pub fn store_pair_for_everybody(&self, token: &Token, label: &str, id: &[u8]) -> Key {
        self.store_pair(token, label, id, &["--no-mark-private"])
    }

    /// Stores a pair that openssl makes, marked as p11tool has it.
    fn store_pair(&self, token: &Token, label: &str, id: &[u8], marks: &[&str]) -> Key {
        let spec = KeySpec::new(KeyKind::P256, label, id);
        let private = self.file("pair.pem");
        run(command("openssl")
            .arg("genpkey")
            .args(spec.kind.openssl_arguments())
            .arg("-out")
            .arg(&private));
        let spki = run(command("openssl")
            .args(["pkey", "-pubout", "-outform", "DER", "-in"])
            .arg(&private));
        run(self
            .p11tool(token)
            .args(["--write", "--label", label, "--id", &hex(id)])
            .args(marks)
            .arg("--load-privkey")
            .arg(&private)
            .arg(token.uri()));
        self.store_public_key(token, label, id, &spki);
        Key { spec, spki }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }
}
