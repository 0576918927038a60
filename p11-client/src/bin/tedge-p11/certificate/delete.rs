//! `tedge-p11 certificate delete`: one certificate of a key.

use p11_client::message::DeleteCertificate;
use serde::Serialize;

use crate::exit::{Exit, Refusal, quoted};
use crate::output::say;
use crate::session::Session;
use crate::stored::{Stored, of_name};

/// Delete a certificate of a key; the key stays
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tedge-p11 certificate delete old-key")]
pub struct Delete {
    /// The key: its label, token/label, or a PKCS#11 URI; with type=cert, that of a certificate
    name: String,
    /// Which one, where the key has several: its serial number, as `certificate show --all` prints it
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    deleted: &'a [String],
}

impl Delete {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let (of, mut stored) = of_name(session, Some(&self.name))?;
        // Those of issuers stay.
        let spki = stored.first().map(|newest| newest.summary.spki.clone());
        stored.retain(|one| Some(&one.summary.spki) == spki.as_ref() && self.is_meant(one));
        let one = match stored.as_slice() {
            [one] => one,
            [] if self.serial.is_none() => {
                say(format_args!(
                    "{} has no certificate; nothing was deleted.",
                    of.name()
                ));
                return session.output.answer(&Answer { deleted: &[] }, String::new);
            }
            [] => return Err(of.no_certificate()),
            several => {
                let what = format!(
                    "{} has {} certificates; which one?",
                    of.name(),
                    several.len()
                );
                let refusal = Refusal::new(Exit::NotFound, "AmbiguousCertificate", what);
                return Err(several.iter().fold(refusal, |refusal, one| {
                    refusal.next(format!(
                        "tedge-p11 certificate delete {} --serial {}   # {}",
                        quoted(&self.name),
                        one.summary.serial,
                        one.summary.in_short()
                    ))
                }));
            }
        };
        let request = DeleteCertificate::new(one.entry.uri.as_str())
            .certificate(Some(one.entry.certificate.clone()));
        let answer = session.ask("deleting the certificate", |client| {
            client.delete_certificate(request.clone())
        })?;
        say(format_args!("Deleted: {}.", one.summary.in_long()));
        session.output.answer(
            &Answer {
                deleted: &answer.deleted,
            },
            String::new,
        )
    }

    fn is_meant(&self, one: &Stored) -> bool {
        let digits = |text: &str| text.replace(':', "").to_ascii_lowercase();
        let serial = self.serial.as_deref();
        serial.is_none_or(|serial| digits(serial) == one.summary.serial)
    }
}
