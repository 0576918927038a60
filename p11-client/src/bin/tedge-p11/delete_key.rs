//! `tedge-p11 delete-key`: both halves of a key pair, after a question.

use std::io::{self, BufRead, IsTerminal};

use p11_client::message::DeleteKey as Request;
use serde::Serialize;

use crate::exit::{Refusal, this_command};
use crate::inventory::Key;
use crate::names::find_key;
use crate::output::{printable, say};
use crate::session::Session;
use crate::stored::newest_certificate;
use crate::x509::Summary;

/// Delete both halves of a key pair; its certificates stay
///
/// No copy of the key is left anywhere. So it is asked for, unless --yes is there and no certificate of the key is valid.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tedge-p11 delete-key old-key")]
pub struct DeleteKey {
    /// The key: its label, token/label, or a PKCS#11 URI
    name: String,
    /// Do not ask, where no certificate of the key is valid
    #[arg(long)]
    yes: bool,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    deleted: &'a [String],
}

impl DeleteKey {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let key = match find_key(session, Some(&self.name)) {
            Err(refusal) if refusal.code == "KeyNotFound" => {
                say(format_args!(
                    "There is no key \"{}\"; nothing was deleted.",
                    printable(&self.name)
                ));
                return session.output.answer(&Answer { deleted: &[] }, String::new);
            }
            key => key?,
        };
        let certificate = newest_certificate(session, &key)?;
        let valid = certificate.filter(|certificate| !certificate.is_late);
        if !self.yes || valid.is_some() {
            self.confirm(&key, valid.as_ref())?;
        }
        let request = Request::new(key.full.as_str());
        let answer = session.ask("the token deletes the key", |client| {
            client.delete_key(request.clone())
        })?;
        let text = match answer.deleted.is_empty() {
            true => String::new(),
            false => key.uri.clone(),
        };
        session.output.answer(
            &Answer {
                deleted: &answer.deleted,
            },
            || text,
        )?;
        say(format_args!(
            "Deleted from token \"{}\": {}.",
            printable(&key.token),
            key.name()
        ));
        Ok(())
    }

    /// The label is typed again, so that no habit answers.
    fn confirm(&self, key: &Key, valid: Option<&Summary>) -> Result<(), Refusal> {
        let about = match valid {
            Some(certificate) => format!("{}, certificate {}", key.kind(), certificate.in_short()),
            None => format!("{}, no valid certificate", key.kind()),
        };
        if !io::stdin().is_terminal() {
            let refusal = Refusal::usage(format_args!(
                "there is no terminal to ask at whether \"{}\" ({about}) is to be deleted",
                key.name()
            ));
            return Err(match valid {
                None => refusal.next(this_command("--yes")),
                Some(_) => refusal.next(format!(
                    "tedge-p11 certificate delete {} && {}",
                    crate::exit::quoted(&self.name),
                    match self.yes {
                        true => this_command("").trim_end().to_owned(),
                        false => this_command("--yes"),
                    }
                )),
            });
        }
        say(format_args!(
            "This deletes {} on token \"{}\" ({about}). There is no copy of it anywhere.",
            key.name(),
            printable(&key.token)
        ));
        say(format_args!("Type \"{}\" to delete it:", key.name()));
        let mut typed = String::new();
        let read = io::stdin().lock().read_line(&mut typed);
        match read.is_ok() && typed.trim_end_matches('\n') == key.name() {
            true => Ok(()),
            false => Err(Refusal::failed("that is another name; nothing was deleted")),
        }
    }
}
