//! `tedge-p11 certificate show`: the certificate of a key, and those of its issuers.

use serde::Serialize;

use crate::exit::Refusal;
use crate::output::say;
use crate::session::Session;
use crate::stored::{Stored, of_name};
use crate::x509::{Summary, to_pem};

/// Print the newest certificate of a key, and those of its issuers, as far as the token has them
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tedge-p11 certificate show device-key >gw-0001.pem")]
pub struct Show {
    /// The key: its label, token/label, or a PKCS#11 URI; with type=cert, that of a certificate
    name: Option<String>,
    /// Older ones, too
    #[arg(long)]
    all: bool,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    certificates: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    full_uri: &'a str,
    pem: String,
    #[serde(flatten)]
    summary: &'a Summary,
}

impl Show {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let (of, stored) = of_name(session, self.name.as_deref())?;
        let newest = stored.first().ok_or_else(|| of.no_certificate())?;
        let is_older = |one: &Stored| one.summary.spki == newest.summary.spki;
        let older = stored.iter().skip(1).position(is_older).map(|at| at + 1);
        let shown = match older {
            Some(older) if !self.all => stored.get(..older).unwrap_or(&stored),
            _ => &stored,
        };
        let mut answer = Answer {
            certificates: Vec::new(),
        };
        for one in shown {
            say(one.summary.in_long());
            if let Some(warning) = one.summary.warning() {
                say(warning);
            }
            answer.certificates.push(Entry {
                full_uri: &one.entry.uri,
                pem: to_pem("CERTIFICATE", &one.entry.certificate)?,
                summary: &one.summary,
            });
        }
        if shown.len() < stored.len() {
            say("There are older ones: --all.");
        }
        let pems = || {
            answer
                .certificates
                .iter()
                .map(|one| one.pem.as_str())
                .collect()
        };
        session.output.answer(&answer, pems)
    }
}
