//! The life of tokens, keys and certificates through the real server, on SoftHSM2: what other
//! programs see of it, and how often the module was called for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod audit;
mod certificates;
mod change_pin;
mod changes_under_load;
mod create_key;
mod delete_key;
mod init_token;
mod list_keys;
mod list_tokens;
mod old_server;
mod protocol_page;
mod scope;
mod tedge1;
mod tpm;

use p11_fault_module::{Faults, Pin};
use p11_tests::fixture::Fixture;

/// Whether another program can log in to the token of this label.
fn takes_pin(fixture: &Fixture, label: &str, arguments: &[&str]) -> bool {
    let mut tool = fixture.hsm.command("pkcs11-tool");
    tool.arg("--module").arg(fixture.hsm.module());
    tool.args(["--token-label", label, "--login"])
        .args(arguments);
    tool.output().unwrap().status.success()
}

/// Another program tries a wrong PIN on the token `device`, through the module that counts tries.
fn tries_a_wrong_pin(fixture: &Fixture, whose: Pin) {
    let arguments: &[&str] = match whose {
        Pin::User => &["--list-objects", "--pin=000001"],
        Pin::So => &["--init-pin", "--so-pin=000001", "--new-pin=999999"],
    };
    let mut tool = fixture.hsm.command("pkcs11-tool");
    tool.arg("--module").arg(Faults::module_path());
    tool.envs(fixture.faults.envs());
    tool.args(["--token-label", "device", "--login"])
        .args(arguments);
    assert!(!tool.output().unwrap().status.success());
}
