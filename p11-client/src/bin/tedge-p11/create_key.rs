//! `tedge-p11 create-key`: a key pair, made on the token, which it will never leave.

use clap::ValueEnum;
use p11_client::message::{CreateKey as Request, KeySpec, KeyType};
use p11_uri::Uri;
use serde::Serialize;

use crate::exit::{Exit, Refusal, quoted};
use crate::hex;
use crate::inventory::{Inventory, Key, Token, kind};
use crate::names::find_token;
use crate::output::{printable, say};
use crate::session::Session;

/// Make a key pair on a token, which its private half will never leave
///
/// Where there is a key of this label already, nothing is made, and that one is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tedge-p11 create-key device-key
  tedge-p11 create-key --type rsa3072 --token device device-key")]
pub struct CreateKey {
    /// The key's label, or token/label
    label: String,
    /// P-256 where it is not said
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// The token's label or URI, where there are several
    #[arg(long)]
    token: Option<String>,
    /// The key's id, in hexadecimal digits; random without it
    #[arg(long, value_name = "HEX")]
    id: Option<String>,
    /// Make one more, beside a key of the same label
    #[arg(long)]
    another: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    P256,
    P384,
    P521,
    Rsa2048,
    Rsa3072,
    Rsa4096,
    Ed25519,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    uri: &'a str,
    full_uri: &'a str,
    label: &'a str,
    token: &'a str,
    key_type: KeyType,
    bits: u32,
    created: bool,
}

impl CreateKey {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let id = self.id.as_deref().map(id).transpose()?;
        let tokens = Inventory::of_tokens(session)?;
        let (token, label) = self.place(&tokens)?;
        if !self.another
            && let Some(key) = existing(session, &token, &label)?
        {
            return self.is_there(session, &key);
        }
        let request =
            Request::new(token.full(), self.spec(), label.as_str()).id(id.map(Into::into));
        let made = session.ask("the token makes the key", |client| {
            client.create_key(request.clone())
        })?;
        say(format_args!(
            "Made on token \"{}\": {}, {}, it will never leave it.",
            printable(&token.entry.label),
            printable(&label),
            kind(made.key_type, made.bits)
        ));
        // One more listing, since its short URI depends on what else is there. Made it is anyway.
        let listed = Inventory::of_keys(session, token.uri(), Some(&label)).ok();
        let keys = listed.map(|listed| listed.keys).unwrap_or_default();
        let made_uri = Uri::parse(&made.uri).map(|uri| uri.without_type().to_string());
        let key = keys.iter().find(|key| made_uri.as_ref() == Ok(&key.full));
        let uri = key.map_or(&made.uri, |key| &key.uri);
        let answer = Answer {
            uri,
            full_uri: &made.uri,
            label: &label,
            token: &token.entry.label,
            key_type: made.key_type,
            bits: made.bits,
            created: true,
        };
        self.answer(session, &answer)?;
        say(format_args!(
            "Next: tedge-p11 csr {} --subject CN=gw-0001 --out gw-0001.csr",
            quoted(&label)
        ));
        Ok(())
    }

    /// On which token, and under which label.
    fn place(&self, tokens: &Inventory) -> Result<(Token, String), Refusal> {
        if self.token.is_none()
            && let Some((token, label)) = self.label.split_once('/')
            && tokens
                .initialized()
                .filter(|one| one.entry.label == token)
                .count()
                == 1
        {
            let token = find_token(tokens, Some(token), "--token")?;
            return Ok((token.clone(), label.to_owned()));
        }
        let token = find_token(tokens, self.token.as_deref(), "--token")?;
        Ok((token.clone(), self.label.clone()))
    }

    /// Nothing is to be made, unless another kind of key was asked for.
    fn is_there(&self, session: &mut Session, key: &Key) -> Result<(), Refusal> {
        let spec = self.spec();
        let (name, there) = (key.name(), key.kind());
        if self.kind.is_some()
            && (spec.key_type, spec.bits) != (key.key_type, key.bits)
            && key.bits > 0
        {
            return Err(Refusal::new(
                Exit::Failed,
                "AlreadyExists",
                format_args!(
                    "there is a key \"{name}\" already, and it is {there}, not {}; nothing was made",
                    kind(spec.key_type, spec.bits)
                ),
            )
            .next(crate::exit::this_command("--another")));
        }
        say(format_args!(
            "There is a key \"{name}\" already ({there}); nothing was made."
        ));
        say("Another one beside it: --another.");
        let answer = Answer {
            uri: &key.uri,
            full_uri: &key.full,
            label: &key.label,
            token: &key.token,
            key_type: key.key_type,
            bits: key.bits,
            created: false,
        };
        self.answer(session, &answer)
    }

    fn answer(&self, session: &Session, answer: &Answer<'_>) -> Result<(), Refusal> {
        let shown = match session.output.verbose {
            true => answer.full_uri,
            false => answer.uri,
        };
        session.output.answer(answer, || shown.to_owned())
    }

    fn spec(&self) -> KeySpec {
        match self.kind.unwrap_or(Kind::P256) {
            Kind::P256 => KeySpec::new(KeyType::Ec, 256),
            Kind::P384 => KeySpec::new(KeyType::Ec, 384),
            Kind::P521 => KeySpec::new(KeyType::Ec, 521),
            Kind::Rsa2048 => KeySpec::new(KeyType::Rsa, 2048),
            Kind::Rsa3072 => KeySpec::new(KeyType::Rsa, 3072),
            Kind::Rsa4096 => KeySpec::new(KeyType::Rsa, 4096),
            Kind::Ed25519 => KeySpec::new(KeyType::Ed25519, 255),
        }
    }
}

/// The key of this label on this token.
fn existing(session: &mut Session, token: &Token, label: &str) -> Result<Option<Key>, Refusal> {
    let mut listed = Inventory::of_keys(session, token.uri(), Some(label))?;
    if let Some((_, trouble)) = listed.troubles.pop() {
        return Err(trouble);
    }
    Ok(listed.keys.into_iter().find(|key| key.label == label))
}

fn id(digits: &str) -> Result<Vec<u8>, Refusal> {
    let no_digits = || Refusal::usage("--id takes hexadecimal digits, two for each byte: --id 01");
    hex::bytes(digits).ok_or_else(no_digits)
}
