//! The command line and configuration of `tedge-p11-server`, as its reference page describes them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which fail by panicking"
)]

mod activation;
mod check_config;
mod configuration;
mod help;
mod redaction;
mod settings;
mod socket;
mod start;
mod whole;

use p11_tests::{
    server::{Builder, Server},
    softhsm::SoftHsm,
    wait::TIMEOUT,
};

/// A module that no machine has.
const NO_MODULE: &str = "/no/such/module.so";

/// Runs a server that must not start, and returns what it printed on stderr.
fn fails_to_start(builder: Builder) -> String {
    let (command, _folder) = builder.into_command();
    let assert = assert_cmd::Command::from_std(command)
        .timeout(TIMEOUT)
        .assert();
    let output = assert.get_output();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(code) if code != 0 => stderr,
        _ => panic!("no failure but {}: {stderr}", output.status),
    }
}

/// A server with an empty token store, which is enough where no key is asked for.
fn with_module(hsm: &SoftHsm) -> Builder {
    Server::builder().softhsm(hsm)
}
