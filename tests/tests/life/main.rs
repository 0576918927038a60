//! The life of tokens, keys and certificates through the real server, on SoftHSM2: what other
//! programs see of it, and how often the module was called for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which fail by panicking"
)]

mod admin;
mod audit;
mod certificates;
mod create;
mod delete;
mod exclusive;
mod init;
mod inventory;
mod old_server;
mod page;
mod pin;
mod scope;
mod tedge1;
mod tokens;
mod tpm;

use p11_fault_module::{Faults, Pin};
use p11_tests::stage::Stage;

/// Whether another program can log in to the token of this label.
fn takes_pin(stage: &Stage, label: &str, arguments: &[&str]) -> bool {
    let mut tool = stage.hsm.command("pkcs11-tool");
    tool.arg("--module").arg(stage.hsm.module());
    tool.args(["--token-label", label, "--login"])
        .args(arguments);
    tool.output().unwrap().status.success()
}

/// Another program tries a wrong PIN on the token `device`, through the module that counts tries.
fn tries_a_wrong_pin(stage: &Stage, whose: Pin) {
    let arguments: &[&str] = match whose {
        Pin::User => &["--list-objects", "--pin=000001"],
        Pin::So => &["--init-pin", "--so-pin=000001", "--new-pin=999999"],
    };
    let mut tool = stage.hsm.command("pkcs11-tool");
    tool.arg("--module").arg(Faults::module_path());
    tool.envs(stage.faults.envs());
    tool.args(["--token-label", "device", "--login"])
        .args(arguments);
    assert!(!tool.output().unwrap().status.success());
}
