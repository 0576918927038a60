//! `tedge-p11 completions`: what a shell completes, from the same source as `--help`.

use clap::Command;
use clap_complete::{Shell, generate};

use crate::exit::Refusal;
use crate::output::print_raw;

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tedge-p11 completions bash >/usr/share/bash-completion/completions/tedge-p11
  tedge-p11 completions fish >~/.config/fish/completions/tedge-p11.fish")]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    /// `command` is the whole command line, as clap knows it.
    pub fn run(&self, mut command: Command) -> Result<(), Refusal> {
        let mut script = Vec::new();
        generate(self.shell, &mut command, "tedge-p11", &mut script);
        print_raw(&script)
    }
}
