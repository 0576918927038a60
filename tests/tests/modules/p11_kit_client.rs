//! p11-kit-client, which shows a token of another process, `p11-kit server`.

use std::{fs, path::PathBuf};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use p11_client::ErrorCode;
use p11_fault_module::{Faults, Rule};
use p11_tests::{
    client::{P256, refused},
    process::Process,
    server::{Builder, Server},
    softhsm::SoftHsm,
    text::assert_contains,
    tools::{command, pkcs11_module},
    wait::TIMEOUT,
};
use tempfile::TempDir;

use crate::{
    PIN, SO_PIN,
    life::{Life, QUICK_KINDS},
    load::failures_during,
    page::assert_told,
};

/// A token in SoftHSM that `p11-kit server` offers, and what the latter asks of it.
struct Setup {
    hsm: SoftHsm,
    faults: Faults,
    folder: TempDir,
}

fn setup() -> Setup {
    let hsm = SoftHsm::new();
    hsm.init_token("device", PIN, SO_PIN);
    let faults = Faults::new(hsm.module());
    Setup {
        hsm,
        faults,
        folder: tempfile::tempdir().unwrap(),
    }
}

impl Setup {
    fn p11_kit_server(&self) -> Process {
        let mut server = command("p11-kit");
        server
            .envs(self.hsm.envs())
            .envs(self.faults.envs())
            .args(["server", "--foreground", "--provider"])
            .arg(Faults::module_path())
            .arg("--name")
            .arg(self.socket())
            .arg("pkcs11:token=device");
        let process = Process::start("p11-kit server", server);
        process.wait_for_log("P11_KIT_SERVER_ADDRESS", TIMEOUT);
        process
    }

    /// A server of ours that is a client of p11-kit's.
    fn server(&self) -> Builder {
        let address = format!("unix:path={}", self.socket().display());
        Server::builder()
            .module(&pkcs11_module("p11-kit-client.so"))
            .envs([("P11_KIT_SERVER_ADDRESS", address)])
            .pin(PIN)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }
}

/// It has a process for each of its clients.
fn kill_with_children(p11_kit: &mut Process) {
    let pid = p11_kit.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    p11_kit.signal(Signal::SIGKILL);
    for child in children.split_whitespace() {
        kill(Pid::from_raw(child.parse().unwrap()), Signal::SIGKILL).unwrap();
    }
    p11_kit.wait(TIMEOUT);
}

#[test]
fn p11_kit_client_plays_its_life() {
    let setup = setup();
    let _p11_kit = setup.p11_kit_server();
    let server = setup.server().start();
    server.wait_for_log("a signature takes three calls");
    let life = Life {
        server: &server,
        faults: &setup.faults,
        token: "device",
        keys: &[],
        kinds: QUICK_KINDS,
    };
    let seen = life.play();
    // cryptoki asks for the length first.
    assert_eq!(seen.calls, [3].into());
    let packages = ["p11-kit-modules", "softhsm2"];
    assert_told("p11-kit-client of SoftHSM", &packages, &seen);
}

#[test]
fn keys_of_p11_kit_client_sign_again_when_its_server_was_killed_under_load() {
    let setup = setup();
    let mut p11_kit = setup.p11_kit_server();
    let server = setup.server().quick().start();
    let client = server.client();
    let made = client.create_key("pkcs11:token=device", P256, "key", None);
    let key = client.open(&made.unwrap().uri).unwrap();
    for _ in 0..2 {
        failures_during(&key, || {
            kill_with_children(&mut p11_kit);
            fs::remove_file(setup.socket()).unwrap();
            p11_kit = setup.p11_kit_server();
        });
    }
}

#[test]
fn a_key_that_wants_a_login_for_each_signature_needs_the_tokens_own_module() {
    let setup = setup();
    setup.faults.set([Rule::AlwaysAuthenticate("key".into())]);
    let _p11_kit = setup.p11_kit_server();
    let server = setup.server().start();
    let client = server.client();
    let made = client.create_key("pkcs11:token=device", P256, "key", None);
    let key = client.open(&made.unwrap().uri).unwrap();
    let failure = refused(key.sign(), ErrorCode::NotSupported);
    assert_contains(&failure.message, ["the token's own module"]);
}
