//! `tedge-p11 csr`: a certificate request for a key, to be sent to an authority.

use std::path::PathBuf;

use p11_client::x509_cert::der::asn1::{ObjectIdentifier, OctetString};
use p11_client::x509_cert::der::pem::LineEnding;
use p11_client::x509_cert::der::{self, Encode, EncodePem};
use p11_client::x509_cert::ext::{Extension, ToExtension};
use p11_client::x509_cert::name::Name;
use p11_client::x509_cert::request::CertReq;
use p11_client::{CertificateParams, Scheme, SigningKey};
use serde::Serialize;

use crate::exit::{Refusal, quoted, this_command};
use crate::hex;
use crate::inventory::Key;
use crate::names::find_key;
use crate::output::{Place, printable, say};
use crate::session::Session;
use crate::verify::{choose, verifies};

/// Make a certificate request (PKCS#10) for a key, signed by it, and check it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tedge-p11 csr device-key --subject CN=gw-0001,O=Maker --out gw-0001.csr
  tedge-p11 csr device-key --subject CN=gw-0001 --san DNS:gw-0001.local --extended-key-usage clientAuth")]
pub struct Csr {
    /// The key: its label, token/label, or a PKCS#11 URI
    name: Option<String>,
    /// Whose certificate it will be, as RFC 4514 writes it: CN=gw-0001,O=Maker
    #[arg(long)]
    subject: Option<String>,
    /// One more name of the subject: DNS:, IP:, email: or URI:, and the name
    #[arg(long, value_name = "NAME")]
    san: Vec<String>,
    /// A key usage, as RFC 5280 calls it: digitalSignature
    #[arg(long, value_name = "USAGE")]
    key_usage: Vec<String>,
    /// An extended key usage by its name, clientAuth, or its object identifier
    #[arg(long, value_name = "USAGE")]
    extended_key_usage: Vec<String>,
    /// Any extension: OID=HEX, its value in DER; OID=critical:HEX for a critical one
    #[arg(long, value_name = "OID=HEX", value_parser = extension)]
    extension: Vec<Extension>,
    /// The signature scheme, as RFC 8446 calls it; PKCS#1 with SHA-256 for RSA where it is not said
    #[arg(long)]
    scheme: Option<String>,
    /// DER in place of PEM
    #[arg(long)]
    der: bool,
    /// Where it goes in place of stdout (-); no file is overwritten
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    uri: &'a str,
    full_uri: &'a str,
    subject: &'a str,
    scheme: &'a str,
    verified: bool,
    pem: &'a str,
}

impl Csr {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let place = Place::new(self.out.as_deref())?;
        let key = find_key(session, self.name.as_deref())?;
        let Some(subject) = &self.subject else {
            let command = match self.name {
                Some(_) => this_command("--subject CN=gw-0001"),
                None => format!("tedge-p11 csr {} --subject CN=gw-0001", quoted(&key.uri)),
            };
            return Err(
                Refusal::usage("whose certificate shall it be? Name the subject").next(command),
            );
        };
        let mut params = self.params(subject)?;
        let signing_key = session.ask("looking for the key", |client| {
            SigningKey::open(client, &key.full, None, None)
        })?;
        if self.scheme.is_some() {
            let schemes = signing_key.schemes().iter().map(|scheme| (*scheme).into());
            params = params.scheme(choose(schemes, self.scheme.as_deref())?);
        }
        let scheme = params.scheme_with(&signing_key)?;
        let request = session.ask("the token signs", |_| params.request(&signing_key))?;
        let verified = check(&request, &signing_key, scheme, &key)?;
        say(format_args!(
            "Signed by {} ({}, {}) on token \"{}\"{}.",
            key.name(),
            key.kind(),
            scheme.name(),
            printable(&key.token),
            match verified {
                true => "; checked",
                false => "; not checked (no keys of this size are known here)",
            }
        ));
        let pem = request.to_pem(LineEnding::LF).map_err(Refusal::failed)?;
        let bytes = match self.der {
            true => request.to_der().map_err(Refusal::failed)?,
            false => pem.clone().into_bytes(),
        };
        let answer = Answer {
            uri: &key.uri,
            full_uri: signing_key.uri(),
            subject,
            scheme: scheme.name(),
            verified,
            pem: &pem,
        };
        place.put(session.output, &answer, &bytes)?;
        if let Some(file) = place.file() {
            let certificate = file.with_extension("pem");
            say(format_args!(
                "Wrote {}. Send it to your CA, then: tedge-p11 certificate import {}",
                file.display(),
                quoted(&certificate.to_string_lossy())
            ));
        }
        Ok(())
    }

    fn params(&self, subject: &str) -> Result<CertificateParams, Refusal> {
        let usage = |e| Refusal::usage(e);
        let mut params = CertificateParams::new(subject).map_err(usage)?;
        for name in &self.san {
            params = params.san(name).map_err(usage)?;
        }
        for name in &self.key_usage {
            params = params.key_usage(name).map_err(usage)?;
        }
        for name in &self.extended_key_usage {
            params = params.extended_key_usage(name).map_err(usage)?;
        }
        for extension in &self.extension {
            params = params.extension(AsItIs(extension)).map_err(usage)?;
        }
        Ok(params)
    }
}

/// Whether the signature is good; false where nobody here can tell.
fn check(
    request: &CertReq,
    signer: &SigningKey,
    scheme: Scheme,
    key: &Key,
) -> Result<bool, Refusal> {
    let message = request.info.to_der().map_err(Refusal::failed)?;
    let spki = signer.public_key_info().spki();
    let signature = request.signature.raw_bytes();
    match verifies(spki, signer.public_key_bits(), scheme, &message, signature) {
        Some(false) => Err(Refusal::failed(format_args!(
            "the token made a signature ({}) that is not one of {}: its module or the token itself is broken",
            scheme.name(),
            key.name()
        ))),
        verified => Ok(verified.is_some()),
    }
}

/// An extension that is complete already.
struct AsItIs<'e>(&'e Extension);

impl ToExtension for AsItIs<'_> {
    type Error = der::Error;

    fn to_extension(self, _subject: &Name, _others: &[Extension]) -> Result<Extension, der::Error> {
        Ok(self.0.clone())
    }
}

fn extension(text: &str) -> Result<Extension, String> {
    let (oid, value) = text.split_once('=').ok_or("write it as OID=HEX")?;
    let (critical, digits) = match value.strip_prefix("critical:") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let extn_id =
        ObjectIdentifier::new(oid).map_err(|e| format!("{oid:?} is no object identifier: {e}"))?;
    let value =
        hex::bytes(digits).ok_or("its value takes hexadecimal digits, two for each byte")?;
    Ok(Extension {
        extn_id,
        critical,
        extn_value: OctetString::new(value).map_err(|e| e.to_string())?,
    })
}
