//! `tedge-p11 keys`: which keys there are, whether they may sign, and whose certificates they have.

use p11_client::message::KeyType;
use p11_uri::Uri;
use serde::Serialize;

use crate::exit::{Exit, Refusal};
use crate::inventory::{Inventory, Key, kind};
use crate::names::{Name, keys};
use crate::output::{printable, say, table};
use crate::session::Session;
use crate::stored::newest_certificate;
use crate::x509::Summary;

/// The keys that the server shows, what they may do, and their certificates
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tedge-p11 keys\n  tedge-p11 keys pkcs11:token=device")]
pub struct Keys {
    /// Only these: a label, token/label, or a PKCS#11 URI
    name: Option<String>,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    keys: Vec<Entry<'a>>,
    /// What the server remarks.
    notes: Vec<Note<'a>>,
    /// Tokens whose keys could not be listed.
    troubles: Vec<Trouble<'a>>,
    truncated: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    label: &'a str,
    id: String,
    token: &'a str,
    uri: &'a str,
    full_uri: &'a str,
    key_type: KeyType,
    bits: u32,
    private: bool,
    can_sign: Option<bool>,
    extractable: Option<bool>,
    always_authenticate: Option<bool>,
    certificate: Option<Summary>,
}

#[derive(Serialize)]
struct Note<'a> {
    token: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct Trouble<'a> {
    token: &'a str,
    code: &'a str,
    message: &'a str,
}

impl Keys {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let name = match &self.name {
            Some(name) => Name::parse(name)?,
            None => Name::Uri(Box::default()),
        };
        let mut inventory = match &name {
            Name::Uri(uri) => Inventory::of_keys(session, uri, None)?,
            Name::Text(label) => Inventory::of_keys(session, &Uri::default(), Some(label))?,
        };
        let mut entries = Vec::new();
        for key in keys(&inventory, &name) {
            let certificate = match inventory.may_be_certified(key) {
                true => newest_certificate(session, key)?,
                false => None,
            };
            entries.push(entry(key, certificate));
        }
        let troubles = inventory.troubles.iter();
        let notes = inventory.notes.iter();
        let answer = Answer {
            notes: notes
                .map(|(token, message)| Note { token, message })
                .collect(),
            troubles: troubles
                .map(|(token, refusal)| trouble(token, refusal))
                .collect(),
            truncated: inventory.is_cut,
            keys: entries,
        };
        let verbose = session.output.verbose;
        session.output.answer(&answer, || {
            let rows: Vec<_> = answer.keys.iter().map(|key| row(key, verbose)).collect();
            table(&rows)
        })?;
        self.remark(&answer);
        let is_found = !answer.keys.is_empty() || self.name.is_none();
        match inventory.troubles.pop() {
            // Told already, by its token.
            Some((_, refusal)) => Err(Refusal::told(refusal.exit)),
            None if is_found => Ok(()),
            None => {
                say(format_args!(
                    "There is no key \"{}\".",
                    printable(self.name.as_deref().unwrap_or_default())
                ));
                Err(Refusal::told(Exit::NotFound))
            }
        }
    }

    /// What is not in the list, and why.
    fn remark(&self, answer: &Answer<'_>) {
        for trouble in &answer.troubles {
            say(format_args!(
                "The keys on token \"{}\" are not shown: {}",
                trouble.token, trouble.message
            ));
        }
        for note in &answer.notes {
            say(format_args!("Token \"{}\": {}", note.token, note.message));
        }
        if answer.keys.iter().any(|key| !key.private) {
            say("A token's PIN is given by --pin-file FILE or --pin-env NAME.");
        }
        if answer.keys.is_empty() && answer.troubles.is_empty() && self.name.is_none() {
            say("There is no key yet. Next: tedge-p11 create-key device-key");
        }
        if answer.truncated {
            say(
                "There are more; they did not fit into the server's answer. Name a token or a key.",
            );
        }
    }
}

fn row(key: &Entry<'_>, verbose: bool) -> [String; 5] {
    let uri = match verbose {
        true => key.full_uri,
        false => key.uri,
    };
    let may = match (key.private, key.can_sign) {
        (false, _) => "public half",
        (true, Some(false)) => "may not sign (CKA_SIGN is false)",
        (true, _) => "signs",
    };
    let certificate = key.certificate.as_ref().map(Summary::in_short);
    [
        printable(key.label),
        kind(key.key_type, key.bits),
        may.to_owned(),
        certificate.unwrap_or_else(|| "no certificate".to_owned()),
        uri.to_owned(),
    ]
}

fn entry(key: &Key, certificate: Option<Summary>) -> Entry<'_> {
    Entry {
        label: &key.label,
        id: key.id_hex(),
        token: &key.token,
        uri: &key.uri,
        full_uri: &key.full,
        key_type: key.key_type,
        bits: key.bits,
        private: key.has_private,
        can_sign: key.can_sign,
        extractable: key.extractable,
        always_authenticate: key.always_authenticate,
        certificate,
    }
}

fn trouble<'a>(token: &'a str, refusal: &'a Refusal) -> Trouble<'a> {
    Trouble {
        token,
        code: &refusal.code,
        message: &refusal.message,
    }
}
