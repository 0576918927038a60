//! `tedge-p11 check`: the walk from the configuration to a signature, and what to do at the first step that fails.
//!
//! | file | what it looks at |
//! |---|---|
//! | `configuration` ... `connect` | a step each, in the order of [`STEPS`] |
//! | `pin` | how the PIN of the token stands |
//! | `judgement` | what `tedge-p11-server --check-config` says |
//! | `surroundings` | what a kind of module needs beside it, and whether the server's sandbox shows it |
//! | `tpm` | whether a TPM has locked itself |
//! | `elf` | what a library is built for, and needs |
//! | `report` | how it is told: text and JSON |
//! | `walk` | what the steps have found so far |
//! | `process` | the server's process, as far as this user sees it |
//! | `units` | systemd's units of the server |
//! | `files` | owners and modes in words |
//! | `finding` | what a step has found |
//! | `arguments` | the command line |

use crate::exit::{Exit, Refusal};
use crate::session::Options;

mod arguments;
mod certificate;
mod configuration;
mod connect;
mod elf;
mod files;
mod finding;
mod judgement;
mod key;
mod module;
mod module_file;
mod pin;
mod process;
mod report;
mod server;
mod service;
mod signature;
mod socket;
mod surroundings;
mod token;
mod tpm;
mod units;
mod walk;

pub use arguments::Check;
use finding::{Finding, Looked, Outcome};
use walk::Walk;

/// A step of the walk.
struct Step {
    name: &'static str,
    /// The exit code where it fails, unless the failure has one of its own: 4 for a PIN, 7 for a permission.
    exit: Exit,
    /// Whether a server that has its module proves that a failure does not matter.
    proven: bool,
    look: fn(&mut Walk<'_>) -> Looked,
}

const fn step(
    name: &'static str,
    exit: Exit,
    proven: bool,
    look: fn(&mut Walk<'_>) -> Looked,
) -> Step {
    Step {
        name,
        exit,
        proven,
        look,
    }
}

/// The whole walk, in its order.
const STEPS: [Step; 11] = [
    //   name             if it fails        proven by a server that works
    step("configuration", Exit::Usage, true, configuration::look),
    step("module file", Exit::Unavailable, true, module_file::look),
    step("service", Exit::Unreachable, true, service::look),
    step("socket", Exit::Unreachable, false, socket::look),
    step("server", Exit::Unreachable, false, server::look),
    step("module", Exit::Unavailable, false, module::look),
    step("token", Exit::NotFound, false, token::look),
    step("key", Exit::NotFound, false, key::look),
    step("certificate", Exit::Failed, false, certificate::look),
    step("signature", Exit::Failed, false, signature::look),
    step("connection", Exit::Failed, false, connect::look),
];

impl Check {
    pub fn run(&self, options: &Options) -> Result<(), Refusal> {
        let mut walk = Walk::new(self, options)?;
        let mut exit = None;
        let mut found = Vec::new();
        for step in &STEPS {
            if step.name == "connection" && self.connect.is_none() {
                continue;
            }
            let mut finding = match exit {
                None => (step.look)(&mut walk).unwrap_or_else(|failure| failure),
                Some(_) => Finding::not_looked_at(),
            };
            if finding.outcome == Outcome::Failed && step.proven && walk.server_works() {
                finding = finding.disproved("the server works all the same, for now");
            }
            if finding.outcome == Outcome::Failed {
                exit = Some(finding.exit.unwrap_or(step.exit));
            }
            found.push((step.name, finding));
        }
        report::print(walk.session.output, &found, exit, self.connect.is_some())?;
        match exit {
            None => Ok(()),
            Some(exit) => Err(Refusal::told(exit)),
        }
    }
}
