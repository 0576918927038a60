//! `tedge-p11 key-file`: a file that stands for a key, for programs that take a private key in a file only.

use std::path::PathBuf;

use clap::ValueEnum;
use p11_client::KeyReference;
use serde::Serialize;

use crate::exit::Refusal;
use crate::names::find_key;
use crate::output::{Place, say};
use crate::session::Session;

/// Write a file that stands for a key: its URI, and no key, as PEM
///
/// Programs with the KeyProvider of p11-client take `rustls`, OpenSSL with pkcs11-provider takes `openssl`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tedge-p11 key-file device-key --out device-key.pem
  tedge-p11 key-file device-key --for openssl --out device-key.pem")]
pub struct KeyFile {
    /// The key: its label, token/label, or a PKCS#11 URI
    name: Option<String>,
    /// Who will read it
    #[arg(long = "for", value_name = "READER", default_value = "rustls")]
    reader: Reader,
    /// Where it goes in place of stdout (-); no file is overwritten
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reader {
    /// A PRIVATE KEY under an algorithm of this project
    Rustls,
    /// A PKCS#11 PROVIDER URI
    Openssl,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    uri: &'a str,
    full_uri: &'a str,
    pem: &'a str,
}

impl KeyFile {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let place = Place::new(self.out.as_deref())?;
        let key = find_key(session, self.name.as_deref())?;
        let reference = KeyReference::new(key.private_uri());
        let pem = match self.reader {
            Reader::Rustls => reference.to_pem(),
            Reader::Openssl => reference.to_provider_pem(),
        };
        let pem = pem.map_err(Refusal::failed)?;
        let answer = Answer {
            uri: &key.uri,
            full_uri: &key.full,
            pem: &pem,
        };
        place.put(session.output, &answer, pem.as_bytes())?;
        if let Some(file) = place.file() {
            say(format_args!(
                "Wrote {}, which leads to {} and holds no key.",
                file.display(),
                key.name()
            ));
        }
        Ok(())
    }
}
