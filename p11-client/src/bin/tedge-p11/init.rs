//! `tedge-p11 init`: a blank token becomes one that is ready for use.

use p11_client::Pin;
use p11_client::message::InitToken;
use serde::Serialize;

use crate::exit::{Exit, Refusal, quoted};
use crate::inventory::{Inventory, Token, may_not_list};
use crate::names::Name;
use crate::output::{printable, say};
use crate::pin::{self, SoPin};
use crate::session::Session;

/// Make a blank token ready for use, under a label
///
/// A token that is in use is never touched. The new user PIN and that of the security officer are asked for, or come by
/// --pin-file and --so-pin-file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tedge-p11 init --label device
  tedge-p11 init --label device --server-pin
  tedge-p11 init --label device 'pkcs11:slot-id=3'")]
pub struct Init {
    /// The new token's label
    #[arg(long)]
    label: String,
    /// Which blank token, where there are several: its URI, see `tedge-p11 tokens`
    #[arg(value_name = "URI")]
    token: Option<String>,
    #[command(flatten)]
    so_pin: SoPin,
    /// Take the server's own PIN, and ask for none
    #[arg(long, conflicts_with_all = ["pin_file", "pin_env"])]
    server_pin: bool,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    uri: &'a str,
    full_uri: &'a str,
    created: bool,
}

impl Init {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let blank = match Inventory::of_tokens(session) {
            Ok(inventory) => match self.usable(&inventory) {
                Some(token) => return self.is_there(session, token),
                None => Some(self.choose(&inventory)?.full().to_owned()),
            },
            // The server chooses by the same rules.
            Err(refusal) if may_not_list(&refusal) => self.token.clone(),
            Err(refusal) => return Err(refusal),
        };
        let (pin, so_pin) = self.pins(session)?;
        let has_own_pin = pin.is_some();
        let request = InitToken::new(self.label.as_str())
            .uri(blank.map(Into::into))
            .pin(pin)
            .so_pin(so_pin);
        let ready = session.ask("the token is made ready", |client| {
            client.init_token(request.clone())
        })?;
        let short = short_uri(session, &self.label, &ready.uri);
        let label = printable(&self.label);
        if !ready.created {
            say(format_args!(
                "There is a token \"{label}\" already; nothing was done."
            ));
            return self.answer(session, &short, &ready.uri, false);
        }
        say(format_args!("Token \"{label}\" is ready."));
        self.answer(session, &short, &ready.uri, true)?;
        if has_own_pin {
            say(
                "The server opens it with the PIN of its own configuration: if that is another one, set it there \
                 (device.cryptoki.pin in /etc/tedge/tedge.toml), then: systemctl reload tedge-p11-server",
            );
        }
        say("Next: tedge-p11 create-key device-key");
        Ok(())
    }

    /// The PINs that the token gets: the user's and the security officer's.
    fn pins(&self, session: &Session) -> Result<(Option<Pin>, Option<Pin>), Refusal> {
        const FLAGS: &str =
            "--pin-file FILE or --pin-env NAME, or take the server's own by --server-pin";
        let so_pin = self.so_pin.read()?;
        if self.server_pin || session.given_pin.is_some() {
            return Ok((session.given_pin.clone(), so_pin));
        }
        let pin = pin::ask_twice("New user PIN (empty: the server's own): ", FLAGS)?;
        let so_pin = match so_pin {
            None => pin::ask_twice(
                "New security officer PIN (empty: the same as the user's): ",
                SoPin::FLAGS,
            )?,
            so_pin => so_pin,
        };
        Ok((pin, so_pin))
    }

    /// The token of this label, if it is ready for use.
    fn usable<'a>(&self, inventory: &'a Inventory) -> Option<&'a Token> {
        inventory.initialized().find(|token| {
            let is_ready = token.entry.user_pin_set || !token.entry.login_required;
            token.entry.label == self.label && is_ready
        })
    }

    fn is_there(&self, session: &Session, token: &Token) -> Result<(), Refusal> {
        say(format_args!(
            "There is a token \"{}\" already; nothing was done.",
            printable(&self.label)
        ));
        self.answer(session, &token.uri, token.full(), false)
    }

    /// The blank token that is meant, or one of this label that was begun and not finished.
    fn choose<'a>(&self, inventory: &'a Inventory) -> Result<&'a Token, Refusal> {
        let mut begun = inventory.initialized();
        if let Some(begun) = begun.find(|token| token.entry.label == self.label) {
            say(format_args!(
                "Token \"{}\" was begun and has no user PIN yet; it is finished, with the security officer's PIN that it has.",
                printable(&self.label)
            ));
            return Ok(begun);
        }
        let name = self.token.as_deref().map(Name::parse).transpose()?;
        let uri = match &name {
            None => None,
            Some(Name::Uri(uri)) => Some(uri),
            Some(Name::Text(_)) => {
                return Err(Refusal::usage(
                    "a blank token has no name but its URI: see tedge-p11 tokens",
                )
                .next("tedge-p11 tokens"));
            }
        };
        let blank = inventory
            .tokens
            .iter()
            .filter(|token| !token.entry.initialized);
        let meant: Vec<_> = blank
            .filter(|token| uri.is_none_or(|uri| token.is_meant(uri)))
            .collect();
        match meant.as_slice() {
            [blank] => {
                say(format_args!(
                    "Blank token found: slot {}, {}.",
                    blank.entry.slot,
                    printable(&blank.entry.model)
                ));
                Ok(blank)
            }
            [] => Err(no_blank(inventory)),
            several => {
                let what = format!("{} blank tokens: name one", several.len());
                let refusal = Refusal::new(Exit::NotFound, "AmbiguousToken", what);
                Err(several.iter().fold(refusal, |refusal, blank| {
                    refusal.next(format!(
                        "tedge-p11 init --label {} {}",
                        quoted(&self.label),
                        quoted(&blank.uri)
                    ))
                }))
            }
        }
    }

    fn answer(
        &self,
        session: &Session,
        uri: &str,
        full: &str,
        created: bool,
    ) -> Result<(), Refusal> {
        let shown = match session.output.verbose {
            true => full,
            false => uri,
        };
        let answer = Answer {
            uri,
            full_uri: full,
            created,
        };
        session.output.answer(&answer, || shown.to_owned())
    }
}

fn no_blank(inventory: &Inventory) -> Refusal {
    let labels = inventory
        .initialized()
        .map(|token| format!("\"{}\"", printable(&token.entry.label)));
    let labels: Vec<_> = labels.collect();
    let what = match labels.is_empty() {
        true => "there is no blank token".to_owned(),
        false => format!("there is no blank token; in use are {}", labels.join(", ")),
    };
    Refusal::new(Exit::NotFound, "TokenNotFound", what).next("tedge-p11 tokens")
}

/// As the other commands print it, if the token shows already.
fn short_uri(session: &mut Session, label: &str, full: &str) -> String {
    let listed = Inventory::of_tokens(session).ok();
    let token = listed.as_ref().and_then(|inventory| {
        let mut tokens = inventory.initialized();
        tokens.find(|token| token.full() == full && token.entry.label == label)
    });
    token.map_or_else(|| full.to_owned(), |token| token.uri.clone())
}
