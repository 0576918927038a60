//! The command line of `tedge-p11 check`.

use std::path::PathBuf;

/// Walk from the configuration to a signature, and say what is wrong
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tedge-p11 check
  tedge-p11 check --connect mqtt.example.com:8883 --ca broker-ca.pem

Without --login no PIN is sent that the server has not had accepted already. Root sees most.")]
pub struct Check {
    /// Have the server try its PIN where the token has not accepted it yet
    #[arg(long)]
    pub login: bool,
    /// Make a TLS connection to this peer, too
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// PEM file with the authorities that the peer's certificate is checked by, instead of this machine's
    #[arg(long, value_name = "FILE", requires = "connect")]
    pub ca: Option<PathBuf>,
}
