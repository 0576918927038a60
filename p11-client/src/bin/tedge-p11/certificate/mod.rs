//! `tedge-p11 certificate`: the certificates of keys, beside them on the token.

mod delete;
mod import;
mod show;

use clap::Subcommand;

use crate::exit::Refusal;
use crate::session::Session;

/// Store, print or delete the certificate of a key
#[derive(Debug, clap::Args)]
pub struct Certificate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::Import),
    Show(show::Show),
    Delete(delete::Delete),
}

impl Certificate {
    pub fn run(&self, session: &mut Session) -> Result<(), Refusal> {
        match &self.command {
            Command::Import(import) => import.run(session),
            Command::Show(show) => show.run(session),
            Command::Delete(delete) => delete.run(session),
        }
    }
}
