//! `tedge-p11 tokens`: the tokens, and how their PINs stand.

use p11_client::message::PinState;
use serde::Serialize;

use crate::exit::Refusal;
use crate::inventory::{Inventory, Token};
use crate::output::{printable, say, table};
use crate::session::Session;

/// The tokens that the server shows, and how their PINs stand
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tedge-p11 tokens")]
pub struct Tokens {}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    tokens: Vec<Entry<'a>>,
    truncated: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    label: &'a str,
    uri: &'a str,
    full_uri: &'a str,
    slot: u64,
    model: &'a str,
    manufacturer: &'a str,
    serial: &'a str,
    initialized: bool,
    user_pin_set: bool,
    login_required: bool,
    pin_pad: bool,
    write_protected: bool,
    user_pin: PinState,
    so_pin: PinState,
}

impl Tokens {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let inventory = Inventory::of_tokens(session)?;
        let answer = Answer {
            tokens: inventory.tokens.iter().map(entry).collect(),
            truncated: inventory.is_cut,
        };
        let verbose = session.output.verbose;
        session.output.answer(&answer, || {
            let rows: Vec<_> = inventory
                .tokens
                .iter()
                .map(|token| row(token, verbose))
                .collect();
            table(&rows)
        })?;
        if inventory.tokens.is_empty() {
            say("The module shows no token.");
        }
        if inventory.is_cut {
            say("There are more; they did not fit into the server's answer.");
        }
        Ok(())
    }
}

fn row(token: &Token, verbose: bool) -> [String; 4] {
    let entry = &token.entry;
    let label = match entry.initialized {
        true => printable(&entry.label),
        false => "(blank)".to_owned(),
    };
    let state = match (entry.initialized, entry.user_pin_set, entry.user_pin) {
        (false, _, _) => format!("slot {}", entry.slot),
        (true, false, _) if entry.login_required => "user PIN never set".to_owned(),
        (true, _, PinState::Low) => "ready, a wrong PIN was tried".to_owned(),
        (true, _, PinState::FinalTry) => "one PIN try left".to_owned(),
        (true, _, PinState::Locked) => "PIN locked".to_owned(),
        (true, _, _) => "ready".to_owned(),
    };
    let uri = match verbose {
        true => token.full(),
        false => &token.uri,
    };
    [label, state, printable(&entry.model), uri.to_owned()]
}

fn entry(token: &Token) -> Entry<'_> {
    let entry = &token.entry;
    Entry {
        label: &entry.label,
        uri: &token.uri,
        full_uri: token.full(),
        slot: entry.slot,
        model: &entry.model,
        manufacturer: &entry.manufacturer,
        serial: &entry.serial,
        initialized: entry.initialized,
        user_pin_set: entry.user_pin_set,
        login_required: entry.login_required,
        pin_pad: entry.pin_pad,
        write_protected: entry.write_protected,
        user_pin: entry.user_pin,
        so_pin: entry.so_pin,
    }
}
