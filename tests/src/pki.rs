//! A certificate authority that lasts as long as a test, and its certificates.
//!
//! All of it is openssl's work: it signs for a public key whose private half it never sees
//! (`-force_pubkey`), for P-521 too, and writes X.509 version 1 when no extension is asked for.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use crate::tools::{command, run};

/// A certificate authority in a temporary folder.
pub struct Pki {
    folder: TempDir,
    issued: AtomicU32,
}

/// A certificate and its private key, both PEM files.
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub private_key: PathBuf,
}

/// Which version of X.509 a client certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Without extensions, as devices in the field still carry.
    V1,
    /// With the extensions of a TLS client.
    V3,
}

/// The extensions of a TLS client's certificate.
pub const CLIENT: &str =
    "basicConstraints = CA:FALSE\nkeyUsage = digitalSignature\nextendedKeyUsage = clientAuth\n";

impl Pki {
    /// A new authority.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pki = Self {
            folder,
            issued: AtomicU32::new(0),
        };
        run(command("openssl")
            .args(["req", "-x509", "-nodes", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"])
            .args(["-subj", "/CN=Test CA", "-out"])
            .arg(pki.authority())
            .arg("-keyout")
            .arg(pki.authority_key()));
        pki
    }

    /// The authority's own certificate, a PEM file.
    pub fn authority(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A server certificate for `localhost` and `127.0.0.1`, with a key of its own.
    pub fn server(&self) -> Identity {
        let number = self.next_number();
        let identity = Identity {
            certificate: self.file(&format!("server-{number}.pem")),
            private_key: self.file(&format!("server-{number}.key")),
        };
        run(command("openssl")
            .args(["req", "-x509", "-nodes", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"])
            .args(["-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName = DNS:localhost, IP:127.0.0.1"])
            .args(["-addext", "basicConstraints = CA:FALSE", "-CA"])
            .arg(self.authority())
            .arg("-CAkey")
            .arg(self.authority_key())
            .arg("-out")
            .arg(&identity.certificate)
            .arg("-keyout")
            .arg(&identity.private_key));
        identity
    }

    /// A client certificate (a PEM file) for a public key whose private half is elsewhere, given
    /// as SubjectPublicKeyInfo in DER.
    pub fn client(&self, common_name: &str, spki: &[u8], version: Version) -> PathBuf {
        let extensions = (version == Version::V3).then_some(CLIENT);
        self.issue(common_name, spki, &["-days", "2"], extensions)
    }

    /// The same with any arguments of `openssl x509`, `-days 90` for example, and any extensions.
    pub fn issue(
        &self,
        common_name: &str,
        spki: &[u8],
        arguments: &[&str],
        extensions: Option<&str>,
    ) -> PathBuf {
        let number = self.next_number();
        let certificate = self.file(&format!("client-{number}.pem"));
        let public_key = self.file(&format!("client-{number}.spki"));
        fs::write(&public_key, spki).unwrap();
        let mut issue = command("openssl");
        issue
            .args(["x509", "-new"])
            .args(arguments)
            .args(["-subj", &format!("/CN={common_name}"), "-CA"])
            .arg(self.authority())
            .arg("-CAkey")
            .arg(self.authority_key())
            .arg("-force_pubkey")
            .arg(&public_key)
            .arg("-out")
            .arg(&certificate);
        if let Some(extensions) = extensions {
            let file = self.file(&format!("client-{number}.ext"));
            fs::write(&file, extensions).unwrap();
            issue.arg("-extfile").arg(file);
        }
        run(&mut issue);
        certificate
    }

    fn authority_key(&self) -> PathBuf {
        self.file("ca.key")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn next_number(&self) -> u32 {
        self.issued.fetch_add(1, Ordering::Relaxed)
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

/// A certificate for a public key, in DER, by an authority that nobody knows.
pub fn certificate_for(spki: &[u8]) -> Vec<u8> {
    to_der(&Pki::new().client("a device", spki, Version::V3))
}

/// The DER bytes of a certificate in a PEM file.
pub fn to_der(certificate: &Path) -> Vec<u8> {
    run(command("openssl")
        .args(["x509", "-outform", "DER", "-in"])
        .arg(certificate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keys::{KeyKind, KeySpec},
        softhsm::SoftHsm,
    };

    fn text(certificate: &Path) -> String {
        let text = run(command("openssl")
            .args(["x509", "-noout", "-text", "-in"])
            .arg(certificate));
        String::from_utf8_lossy(&text).into_owned()
    }

    fn is_trusted(pki: &Pki, certificate: &Path, purpose: &str) {
        run(command("openssl")
            .args(["verify", "-purpose", purpose, "-CAfile"])
            .arg(pki.authority())
            .arg(certificate));
    }

    #[test]
    fn a_server_certificate_is_good_for_localhost() {
        let pki = Pki::new();
        let server = pki.server();
        is_trusted(&pki, &server.certificate, "sslserver");
        assert!(text(&server.certificate).contains("DNS:localhost, IP Address:127.0.0.1"));
    }

    #[test]
    fn a_key_in_a_token_gets_certificates_of_both_versions() {
        let hsm = SoftHsm::new();
        let token = hsm.init_token("pki", "482915", "771122");
        let pki = Pki::new();
        for kind in [KeyKind::P521, KeyKind::Rsa2048, KeyKind::Ed25519] {
            let key = hsm.generate(&token, &KeySpec::new(kind, "a key", &[kind as u8]));
            for (version, shown) in [(Version::V1, "Version: 1 "), (Version::V3, "Version: 3 ")] {
                let certificate = pki.client("a device", &key.spki, version);
                is_trusted(&pki, &certificate, "sslclient");
                assert!(text(&certificate).contains(shown));
                assert!(text(&certificate).contains("Subject: CN = a device"));
                let subject_key = run(command("openssl")
                    .args(["x509", "-noout", "-pubkey", "-in"])
                    .arg(&certificate));
                let expected = pem_of(&key.spki);
                assert_eq!(String::from_utf8_lossy(&subject_key), expected);
            }
        }
    }

    fn pem_of(spki: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), spki).unwrap();
        let pem = run(command("openssl")
            .args(["pkey", "-pubin", "-in"])
            .arg(file.path()));
        String::from_utf8_lossy(&pem).into_owned()
    }
}
