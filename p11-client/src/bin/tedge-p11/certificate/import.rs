//! `tedge-p11 certificate import`: a certificate that a CA has issued goes to its key.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use p11_client::message::{GetCertificates, GetPublicKey, ImportCertificate, OpenKey};
use p11_client::rustls::pki_types::CertificateDer;
use p11_client::rustls::pki_types::pem::PemObject;
use p11_client::spki::PublicKey;
use p11_client::{Identity, Uri};
use serde::Serialize;

use crate::exit::{Exit, Refusal};
use crate::inventory::{Inventory, Token};
use crate::names::find_token;
use crate::output::{printable, say};
use crate::session::Session;
use crate::x509::Summary;

/// Keys whose fingerprints are shown, at most.
const COMPARED: usize = 8;

/// Store a certificate beside its key
///
/// The file has the certificate of a key that is on a token, in PEM or DER. Those of its issuers may follow in the file;
/// they are not stored.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tedge-p11 certificate import gw-0001.pem")]
pub struct Import {
    /// The certificate (- for stdin)
    file: PathBuf,
    /// The token's label or URI; else the one that has the key
    #[arg(long)]
    token: Option<String>,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    uri: &'a str,
    full_uri: &'a str,
    key: &'a str,
    stored: bool,
    certificate: &'a Summary,
}

impl Import {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let chain = read(&self.file)?;
        let Some(der) = chain.first() else {
            return Err(Refusal::usage(format_args!(
                "{:?} has no certificate",
                self.file
            )));
        };
        let summary = Summary::of(der)?;
        let public = PublicKey::from_spki(&summary.spki).map_err(Refusal::failed)?;
        let tokens = Inventory::of_tokens(session)?;
        let token = self.token(session, &tokens, &summary, &public)?;
        let stored_before = is_stored(session, token, der)?;
        let request = ImportCertificate::new(token.full(), der.to_vec());
        let imported = session.ask("storing the certificate", |client| {
            client.import_certificate(request.clone())
        });
        let imported = match imported {
            Err(refusal) if refusal.code == "KeyNotFound" => {
                return Err(self.of_no_key(session, token, &summary, public.identity()));
            }
            imported => imported?,
        };
        let key = key_of(session, token, &imported.uri);
        self.tell(&summary, &key, chain.len(), stored_before);
        let answer = Answer {
            uri: &format!("{};type=cert", key.uri),
            full_uri: &imported.uri,
            key: &key.uri,
            stored: !stored_before,
            certificate: &summary,
        };
        let shown = match session.output.verbose {
            true => answer.full_uri,
            false => answer.uri,
        };
        session.output.answer(&answer, || shown.to_owned())
    }

    /// The token that is named, or the only one, or the one that has the key.
    fn token<'a>(
        &self,
        session: &mut Session,
        tokens: &'a Inventory,
        summary: &Summary,
        public: &PublicKey,
    ) -> Result<&'a Token, Refusal> {
        let file = self.file.to_string_lossy();
        if self.token.is_some() || tokens.initialized().count() < 2 {
            return find_token(tokens, self.token.as_deref(), "--token");
        }
        let request = OpenKey::new("pkcs11:").spki(Some(public.spki().to_vec().into()));
        let opened = session.ask("looking for the key", |client| {
            client.open_key(request.clone())
        });
        match opened {
            Ok(key) => {
                let uri = Uri::parse(&key.uri).map_err(Refusal::failed)?;
                let mut tokens = tokens.initialized();
                let token = tokens.find(|token| token.has(&uri));
                token.ok_or_else(|| Refusal::failed("the token of the key is gone"))
            }
            Err(refusal) if refusal.code == "KeyNotFound" => Err(Refusal {
                message: format!(
                    "{file} ({}) is of no key on any token. Nothing was stored",
                    summary.subject_name
                ),
                ..refusal
            }),
            // The server cannot tell without a login, and may not log in everywhere.
            Err(_) => find_token(tokens, None, "--token"),
        }
    }

    /// Both sides, so that it can be seen which certificate or key it was meant to be.
    fn of_no_key(
        &self,
        session: &mut Session,
        token: &Token,
        summary: &Summary,
        identity: Identity,
    ) -> Refusal {
        let mut message = format!(
            "{} ({}) is of no key on token \"{}\".\n  {identity}   its public key",
            self.file.display(),
            summary.subject_name,
            printable(&token.entry.label)
        );
        let listed = Inventory::of_keys(session, token.uri(), None);
        let keys = listed.map(|listed| listed.keys).unwrap_or_default();
        for key in keys.iter().take(COMPARED) {
            let request = GetPublicKey::new(key.full.as_str());
            let public = session.ask("reading the public key", |client| {
                client.get_public_key(request.clone())
            });
            if let Ok(public) = public {
                message += &format!("\n  {}   {}", public.identity, key.name());
            }
        }
        message += "\nNothing was stored.";
        Refusal::new(Exit::NotFound, "KeyNotFound", message).next("tedge-p11 keys")
    }

    fn tell(&self, summary: &Summary, key: &Names, in_file: usize, stored_before: bool) {
        let done = match stored_before {
            true => "It was stored before; nothing was done.",
            false => "Stored beside it.",
        };
        say(format_args!(
            "{}: of {}. {done}",
            summary.in_long(),
            key.name
        ));
        if let Some(warning) = summary.warning() {
            say(warning);
        }
        if in_file > 1 {
            say(format_args!(
                "The file has {} more, of its issuers: they stay in the file.",
                in_file - 1
            ));
        }
    }
}

/// What a key is called.
struct Names {
    name: String,
    uri: String,
}

/// The key beside which a certificate was stored: it has the same label and id.
fn key_of(session: &mut Session, token: &Token, certificate: &str) -> Names {
    let uri = Uri::parse(certificate)
        .map(|uri| uri.without_type())
        .unwrap_or_default();
    let listed = Inventory::of_keys(session, token.uri(), uri.object());
    let keys = listed.map(|listed| listed.keys).unwrap_or_default();
    match keys.iter().find(|key| uri.matches_key(&key.label, &key.id)) {
        Some(key) => Names {
            name: key.name(),
            uri: key.uri.clone(),
        },
        None => Names {
            name: printable(uri.object().unwrap_or("the key")),
            uri: uri.to_string(),
        },
    }
}

/// Whether the very same certificate is on the token. Who may not look stores it once more, which changes nothing.
fn is_stored(session: &mut Session, token: &Token, der: &[u8]) -> Result<bool, Refusal> {
    let request = GetCertificates::new(format!("{};type=cert", token.full()));
    let there = session.ask("looking for certificates", |client| {
        client.get_certificates(request.clone())
    });
    match there {
        Ok(there) => Ok(there
            .certificates
            .iter()
            .any(|one| *one.certificate == *der)),
        Err(refusal) if refusal.exit == Exit::NotAllowed => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

/// The certificates of a file.
fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let unreadable = |cause: &dyn std::fmt::Display| {
        Refusal::usage(format_args!("{file:?} cannot be read: {cause}"))
    };
    let mut bytes = Vec::new();
    let read = match file == Path::new("-") {
        true => io::stdin().read_to_end(&mut bytes).map(|_| bytes),
        false => fs::read(file),
    };
    let bytes = read.map_err(|e| unreadable(&e))?;
    // A DER SEQUENCE.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateDer::from(bytes)]);
    }
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>();
    certificates.map_err(|e| unreadable(&e))
}
