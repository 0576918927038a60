//! `tedge-p11`: takes a person from a blank token to a device that is connected.
//!
//! # Map
//! | file | what it holds |
//! |---|---|
//! | `status`, `tokens`, `keys`, `init`, `create_key`, `delete_key`, `public_key`, `sign`, `csr`, `certificate`, `key_file`, `change_pin`, `completions` | a command each |
//! | `check` | the walk that says what is wrong; its own map is in `check/mod.rs` |
//! | `metrics` | a status for Prometheus |
//! | `verify` | which scheme is signed with, and whether a signature is good |
//! | `stored` | the certificates of a key, or one that is named itself |
//! | `names` | a label, `token/label` or URI, and the one key or token that it means |
//! | `inventory` | what the server shows, each with the shortest URI that means it alone |
//! | `short_uri` | what such a URI has to say |
//! | `session` | the server that was reached, and the options of all commands |
//! | `socket` | where the server is expected |
//! | `pin` | PINs: from files and variables, or asked for without an echo |
//! | `x509` | what a certificate says |
//! | `progress` | the time that has passed, while something is waited for |
//! | `output` | the thing on stdout, words on stderr, JSON |
//! | `hex` | bytes as people write them |
//! | `exit` | exit codes, and refusals with the command that helps |
//!
//! Each imports only from files below it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod certificate;
mod change_pin;
mod check;
mod completions;
mod create_key;
mod csr;
mod delete_key;
mod exit;
mod hex;
mod init;
mod inventory;
mod key_file;
mod keys;
mod metrics;
mod names;
mod output;
mod pin;
mod progress;
mod public_key;
mod session;
mod short_uri;
mod sign;
mod socket;
mod status;
mod stored;
mod tokens;
mod verify;
mod x509;

use exit::Refusal;
use session::{Options, Session};

/// Keys in TPMs, smart cards and other PKCS#11 tokens, through tedge-p11-server
#[derive(Debug, Parser)]
#[command(name = "tedge-p11", version, arg_required_else_help = true)]
#[command(after_help = "\
From a blank token to a key:
  tedge-p11 init --label device
  tedge-p11 create-key device-key
Where something does not work:
  tedge-p11 check

The answer is on stdout, all words are on stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 not found or ambiguous, 4 PIN,
5 server not reachable, 6 module or token unavailable, 7 not allowed.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Status(status::Status),
    Tokens(tokens::Tokens),
    Keys(keys::Keys),
    Init(init::Init),
    CreateKey(create_key::CreateKey),
    DeleteKey(delete_key::DeleteKey),
    PublicKey(public_key::PublicKey),
    Sign(sign::Sign),
    Csr(csr::Csr),
    Certificate(certificate::Certificate),
    KeyFile(key_file::KeyFile),
    ChangePin(change_pin::ChangePin),
    Completions(completions::Completions),
}

fn main() -> ExitCode {
    let Arguments { command, options } = Arguments::parse();
    let output = options.output();
    match run(&command, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            if !refusal.is_told() {
                output.refusal(&refusal);
            }
            ExitCode::from(refusal.exit as u8)
        }
    }
}

fn run(command: &Command, options: &Options) -> Result<(), Refusal> {
    let session = || Session::open(options);
    match command {
        // It looks for the server itself, which may not be there.
        Command::Check(check) => check.run(options),
        Command::Status(status) => status.run(options),
        Command::Tokens(tokens) => tokens.run(&mut session()?),
        Command::Keys(keys) => keys.run(&mut session()?),
        Command::Init(init) => init.run(&mut session()?),
        Command::CreateKey(create_key) => create_key.run(&mut session()?),
        Command::DeleteKey(delete_key) => delete_key.run(&mut session()?),
        Command::PublicKey(public_key) => public_key.run(&mut session()?),
        Command::Sign(sign) => sign.run(&mut session()?),
        Command::Csr(csr) => csr.run(&mut session()?),
        Command::Certificate(certificate) => certificate.run(&mut session()?),
        Command::KeyFile(key_file) => key_file.run(&mut session()?),
        Command::ChangePin(change_pin) => change_pin.run(&mut session()?),
        Command::Completions(completions) => completions.run(Arguments::command()),
    }
}
