//! tpm2-pkcs11 on a software TPM, straight and through the resource manager tpm2-abrmd.

use p11_client::ErrorCode;
use p11_fault_module::Faults;
use p11_tests::{
    client::{ClientKey, P256, refused},
    server::Server,
    tools::run,
    tpm::Tpm,
    wait::wait_until,
};

use crate::{
    PIN, SO_PIN,
    life::{EVERY_KIND, Kind, Life},
    load::failures_during,
    page::assert_told,
};

const STRAIGHT: &[&str] = &["libtpm2-pkcs11-1", "swtpm"];
const SHARED: &[&str] = &["libtpm2-pkcs11-1", "swtpm", "tpm2-abrmd"];

/// A TPM with the token `device`.
fn tpm() -> Tpm {
    let tpm = Tpm::new();
    tpm.init_token("device", PIN, SO_PIN);
    tpm
}

fn start(tpm: &Tpm) -> (Faults, Server) {
    let faults = Faults::new(tpm.module());
    let server = Server::builder()
        .module(&Faults::module_path())
        .envs(tpm.envs())
        .envs(faults.envs())
        .pin(PIN)
        .start();
    server.secrets().add_all(tpm.secrets());
    (faults, server)
}

fn play(tpm: &Tpm, kinds: &[Kind], name: &str, packages: &[&str]) {
    let (faults, server) = start(tpm);
    let life = Life {
        server: &server,
        faults: &faults,
        token: "device",
        keys: &[],
        kinds,
    };
    let seen = life.play();
    assert_eq!(seen.calls, [2].into());
    assert_told(name, packages, &seen);
}

fn made(server: &Server) -> ClientKey {
    let client = server.client();
    let made = client.create_key("pkcs11:token=device", P256, "key", None);
    client.open(&made.unwrap().uri).unwrap()
}

#[test]
fn tpm2_pkcs11_plays_its_life_straight() {
    // A TPM of swtpm holds three objects at a time, and the module leaves the keys there.
    let name = "tpm2-pkcs11, straight (has place for one key)";
    play(&tpm().straight(), &EVERY_KIND[..1], name, STRAIGHT);
}

#[test]
fn tpm2_pkcs11_plays_its_life_with_a_resource_manager() {
    play(&tpm(), &EVERY_KIND, "tpm2-pkcs11, tpm2-abrmd", SHARED);
}

#[test]
fn keys_of_tpm2_pkcs11_sign_again_when_its_resource_manager_was_restarted_under_load() {
    let mut tpm = tpm();
    let (_faults, server) = start(&tpm);
    let key = made(&server);
    failures_during(&key, || tpm.restart_resource_manager());
    drop(server);
    assert_eq!(tpm.lockout_counter(), 0);
}

#[test]
fn keys_of_tpm2_pkcs11_sign_again_when_its_tpm_was_restarted_under_load() {
    let tpm = tpm();
    // To lose the power in the middle of a use counts as a wrong try.
    let many = ["--setup-parameters", "--max-tries=1000"];
    run(tpm.command("tpm2_dictionarylockout").args(many));
    let mut tpm = tpm.straight();
    let (_faults, server) = start(&tpm);
    let key = made(&server);
    failures_during(&key, || tpm.restart());
}

#[test]
fn the_token_of_tpm2_pkcs11_is_found_when_its_resource_manager_comes_up_after_the_server() {
    let mut tpm = tpm();
    tpm.stop_resource_manager();
    let (_faults, server) = start(&tpm);
    let list = || server.client().list_keys("pkcs11:token=device");
    refused(list(), ErrorCode::ModuleUnavailable);
    tpm.start_resource_manager();
    wait_until(|| list().is_ok());
}
