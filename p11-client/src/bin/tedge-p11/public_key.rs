//! `tedge-p11 public-key`: the public half of a key.

use p11_client::message::{GetPublicKey, KeyType};
use serde::Serialize;

use crate::exit::Refusal;
use crate::names::find_key;
use crate::output::print_raw;
use crate::session::Session;
use crate::x509::to_pem;

/// Print the public half of a key
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tedge-p11 public-key device-key >device-key.pub.pem")]
pub struct PublicKey {
    /// The key: its label, token/label, or a PKCS#11 URI
    name: Option<String>,
    /// DER (SubjectPublicKeyInfo) in place of PEM
    #[arg(long)]
    der: bool,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    uri: &'a str,
    full_uri: &'a str,
    key_type: KeyType,
    bits: u32,
    /// SHA-256 of the DER, in hexadecimal digits.
    identity: String,
    pem: &'a str,
}

impl PublicKey {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let key = find_key(session, self.name.as_deref())?;
        let request = GetPublicKey::new(key.full.as_str());
        let public = session.ask("reading the public key", |client| {
            client.get_public_key(request.clone())
        })?;
        if self.der && !session.output.json {
            return print_raw(&public.spki);
        }
        let pem = to_pem("PUBLIC KEY", &public.spki)?;
        let answer = Answer {
            uri: &key.uri,
            full_uri: &public.uri,
            key_type: public.key_type,
            bits: public.bits,
            identity: public.identity.to_string(),
            pem: &pem,
        };
        session.output.answer(&answer, || pem.clone())
    }
}
