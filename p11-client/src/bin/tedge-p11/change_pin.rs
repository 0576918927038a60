//! `tedge-p11 change-pin`: another user PIN, by the old one or by the security officer's.

use p11_client::Pin;
use p11_client::message::{ChangePin as Request, PinState};
use serde::Serialize;

use crate::exit::{Exit, Refusal, quoted};
use crate::inventory::{Inventory, Token};
use crate::names::find_token;
use crate::output::{printable, say};
use crate::pin::{self, NewPin, SoPin, USER_PIN_FLAGS};
use crate::session::Session;

/// Give a token's user another PIN
///
/// By the PIN until now, which is asked for or comes by --pin-file; or with --reset by the security officer's. Each wrong
/// one uses up a try of the token, and a token with no try left is locked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tedge-p11 change-pin device
  tedge-p11 change-pin --reset device")]
pub struct ChangePin {
    /// The token's label or URI, where there are several
    token: Option<String>,
    /// By the security officer's PIN, whatever the user's was
    #[arg(long)]
    reset: bool,
    /// The PIN until now is the server's own
    #[arg(long, conflicts_with_all = ["reset", "pin_file", "pin_env"])]
    server_pin: bool,
    #[command(flatten)]
    new_pin: NewPin,
    #[command(flatten)]
    so_pin: SoPin,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    uri: &'a str,
    full_uri: &'a str,
    stale: Option<&'a str>,
}

impl ChangePin {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let inventory = Inventory::of_tokens(session)?;
        let token = find_token(&inventory, self.token.as_deref(), "")?;
        self.check(token)?;
        let (old_pin, so_pin) = match self.reset {
            true => (None, Some(self.so_pin(token)?)),
            false => (self.old_pin(session, token)?, None),
        };
        let new_pin = match self.new_pin.read()? {
            Some(pin) => pin,
            None => pin::ask_twice("New user PIN: ", NewPin::FLAGS)?.ok_or_else(empty)?,
        };
        let request = Request::new(new_pin)
            .uri(Some(token.full().into()))
            .old_pin(old_pin)
            .so_pin(so_pin)
            .reset(self.reset);
        let changed = session.ask("the token changes the PIN", |client| {
            client.change_pin(request.clone())
        })?;
        say(format_args!(
            "The user PIN of token \"{}\" is changed.",
            printable(&token.entry.label)
        ));
        let answer = Answer {
            uri: &token.uri,
            full_uri: &changed.uri,
            stale: changed.stale.as_deref(),
        };
        let shown = match session.output.verbose {
            true => answer.full_uri,
            false => answer.uri,
        };
        session.output.answer(&answer, || shown.to_owned())?;
        if let Some(stale) = &changed.stale {
            say(stale);
        }
        Ok(())
    }

    /// Refuses what could lock the token, and says what a wrong PIN costs.
    fn check(&self, token: &Token) -> Result<(), Refusal> {
        let label = printable(&token.entry.label);
        let state = match self.reset {
            true => token.entry.so_pin,
            false => token.entry.user_pin,
        };
        let whose = match self.reset {
            true => "security officer's",
            false => "user's",
        };
        let refuse = |what: &str| {
            let refusal = Refusal::new(
                Exit::Pin,
                "PinLocked",
                format_args!("the {whose} PIN of token \"{label}\" {what}; nothing was sent"),
            );
            match self.reset {
                // Nobody is above the security officer.
                true => Err(refusal.next("tedge-p11 tokens")),
                false => Err(refusal.next(format!(
                    "tedge-p11 change-pin --reset {}",
                    quoted(&token.uri)
                ))),
            }
        };
        match state {
            PinState::Locked => refuse("is locked"),
            PinState::FinalTry => refuse("has one try left"),
            PinState::Low => {
                say(format_args!(
                    "A wrong PIN was tried on token \"{label}\" before: another one may lock it."
                ));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn old_pin(&self, session: &Session, token: &Token) -> Result<Option<Pin>, Refusal> {
        if self.server_pin || session.given_pin.is_some() {
            return Ok(session.given_pin.clone());
        }
        let question = format!(
            "User PIN of \"{}\" until now (empty: the server's own): ",
            printable(&token.entry.label)
        );
        let flags = format!("{USER_PIN_FLAGS}, or take the server's own by --server-pin");
        pin::ask(&question, &flags)
    }

    fn so_pin(&self, token: &Token) -> Result<Pin, Refusal> {
        if let Some(pin) = self.so_pin.read()? {
            return Ok(pin);
        }
        let question = format!(
            "Security officer's PIN of \"{}\": ",
            printable(&token.entry.label)
        );
        pin::ask(&question, SoPin::FLAGS)?.ok_or_else(empty)
    }
}

fn empty() -> Refusal {
    Refusal::usage("the PIN is empty; nothing was done")
}
