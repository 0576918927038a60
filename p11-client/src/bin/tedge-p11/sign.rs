//! `tedge-p11 sign`: a signature over a file, or over nothing in particular as a proof that key and PIN are good.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use base64ct::{Base64, Encoding};
use p11_client::message::{OpenKey, Sign as Request};
use serde::Serialize;

use crate::exit::{Refusal, this_command};
use crate::names::find_key;
use crate::output::{Place, say};
use crate::session::Session;
use crate::verify::{choose, verifies};

/// What `--test` signs: it says by itself that it is nothing else.
const TEST: &[u8] = b"tedge-p11 sign --test: a proof that the key can sign, and nothing else";

/// Sign a file, as TLS does: ECDSA in DER, RSA and Ed25519 as they are
///
/// The signature is verified before it is printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tedge-p11 sign --test device-key
  tedge-p11 sign --out firmware.sig device-key firmware.bin
  openssl dgst -sha256 -verify device-key.pub.pem -signature firmware.sig firmware.bin")]
pub struct Sign {
    /// The key: its label, token/label, or a PKCS#11 URI
    name: Option<String>,
    /// What to sign (- for stdin)
    #[arg(required_unless_present = "test", conflicts_with = "test")]
    file: Option<PathBuf>,
    /// Sign a text of our own, verify it, and print the key's URI
    #[arg(long)]
    test: bool,
    /// The scheme, as RFC 8446 calls it; else the key's first
    #[arg(long)]
    scheme: Option<String>,
    /// Where the signature goes in place of stdout; no file is overwritten
    #[arg(long, value_name = "FILE", conflicts_with = "test")]
    out: Option<PathBuf>,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    uri: &'a str,
    full_uri: &'a str,
    scheme: &'a str,
    verified: bool,
    milliseconds: u128,
    /// Base64.
    signature: String,
}

impl Sign {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let place = self.place(session)?;
        let message = match &self.file {
            Some(file) => read(file)?,
            None => TEST.to_vec(),
        };
        let key = find_key(session, self.name.as_deref())?;
        let open = OpenKey::new(key.full.as_str());
        let opened = session.ask("looking for the key", |client| {
            client.open_key(open.clone())
        })?;
        if let Some(note) = &opened.note {
            say(note);
        }
        let scheme = choose(opened.schemes.iter().copied(), self.scheme.as_deref())?;
        let request = Request::new(
            opened.uri.as_str(),
            scheme.number(),
            message.clone(),
            opened.identity,
        );
        let began = Instant::now();
        let signature = session.ask("the token signs", |client| client.sign(request.clone()))?;
        let took = began.elapsed();
        let verified = verifies(&opened.spki, opened.bits, scheme, &message, &signature);
        if verified == Some(false) {
            return Err(Refusal::failed(format_args!(
                "the token made a signature ({}) that is not one of {}: its module or the token itself is broken",
                scheme.name(),
                key.name()
            )));
        }
        let proof = match verified {
            Some(_) => "made and verified",
            None => "made, not verified (no keys of this size are known here)",
        };
        say(format_args!(
            "Signature {proof}, {}, {} ms.",
            scheme.name(),
            took.as_millis()
        ));
        let answer = Answer {
            uri: &key.uri,
            full_uri: &opened.uri,
            scheme: scheme.name(),
            verified: verified.is_some(),
            milliseconds: took.as_millis(),
            signature: Base64::encode_string(&signature),
        };
        if !self.test {
            return place.put(session.output, &answer, &signature);
        }
        let shown = match session.output.verbose {
            true => &opened.uri,
            false => &key.uri,
        };
        session.output.answer(&answer, || shown.clone())
    }

    /// A signature has a place to go before anything is signed.
    fn place(&self, session: &Session) -> Result<Place, Refusal> {
        let place = Place::new(self.out.as_deref())?;
        let is_printed = place.file().is_none() && !self.test && !session.output.json;
        if is_printed && io::stdout().is_terminal() {
            let what = "a signature is no text for a terminal";
            return Err(Refusal::usage(what).next(this_command("--out FILE")));
        }
        Ok(place)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let read = match file == Path::new("-") {
        true => io::stdin().read_to_end(&mut bytes).map(|_| bytes),
        false => fs::read(file),
    };
    read.map_err(|e| Refusal::usage(format_args!("{file:?} cannot be read: {e}")))
}
