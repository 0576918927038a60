//! `tedge-p11 status`: whether the server can use its module, in one line.

use serde::Serialize;

use crate::exit::{Exit, Refusal};
use crate::inventory::{Inventory, may_not_list};
use crate::output::{BAD, GOOD};
use crate::session::Session;

/// In one line, whether the server can use its module
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tedge-p11 status --json")]
pub struct Status {}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    server: &'a str,
    trouble: Option<&'a str>,
    tokens: Option<usize>,
}

impl Status {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        let status = session.ask("asking for the status", |client| client.status())?;
        let tokens = match status.available {
            true => count(session)?,
            false => None,
        };
        let answer = Answer {
            ok: status.available,
            server: &status.server,
            trouble: status.trouble.as_deref(),
            tokens,
        };
        session
            .output
            .answer(&answer, || match (status.available, tokens) {
                (true, Some(1)) => format!("{GOOD}ok:{GOOD:#} {}, 1 token", status.server),
                (true, Some(count)) => {
                    format!("{GOOD}ok:{GOOD:#} {}, {count} tokens", status.server)
                }
                (true, None) => format!("{GOOD}ok:{GOOD:#} {}", status.server),
                (false, _) => {
                    let trouble = status
                        .trouble
                        .as_deref()
                        .unwrap_or("its module cannot be used");
                    format!("{BAD}NOT OK:{BAD:#} {}: {trouble}", status.server)
                }
            })?;
        match status.available {
            true => Ok(()),
            false => Err(Refusal::told(Exit::Unavailable)),
        }
    }
}

/// The tokens that are ready, where this user may list them.
fn count(session: &mut Session) -> Result<Option<usize>, Refusal> {
    match Inventory::of_tokens(session) {
        Ok(inventory) => Ok(Some(inventory.initialized().count())),
        Err(refusal) if may_not_list(&refusal) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}
