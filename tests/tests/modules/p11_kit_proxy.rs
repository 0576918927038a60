//! p11-kit-proxy, which shows the tokens of all modules that are registered.

use std::path::Path;

use p11_fault_module::Faults;
use p11_tests::{server::Server, softhsm::SoftHsm, tools::pkcs11_module};

use crate::{
    PIN, SO_PIN,
    life::{Life, QUICK_KINDS},
    page::assert_told,
    registry::Registry,
};

#[test]
fn p11_kit_proxy_plays_its_life_over_several_modules_of_which_one_is_missing() {
    let hsm = SoftHsm::new();
    hsm.init_token("device", PIN, SO_PIN);
    let faults = Faults::new(hsm.module());
    let registry = Registry::new(&[
        ("a-softhsm", &Faults::module_path(), ""),
        ("missing", Path::new("/nowhere/libmissing.so"), ""),
        ("opensc", &pkcs11_module("opensc-pkcs11.so"), ""),
        ("trust", &pkcs11_module("p11-kit-trust.so"), ""),
    ]);
    let server = Server::builder()
        .module(&pkcs11_module("p11-kit-proxy.so"))
        .envs(hsm.envs())
        .envs(faults.envs())
        .pin(PIN)
        .within(&registry.namespace)
        .start();
    server.secrets().add_all(hsm.secrets());
    // A token of another module is there, too.
    server.client().token("System Trust");
    let life = Life {
        server: &server,
        faults: &faults,
        token: "device",
        keys: &[],
        kinds: QUICK_KINDS,
    };
    let packages = ["p11-kit-modules", "softhsm2"];
    assert_told(
        "p11-kit-proxy over SoftHSM and others",
        &packages,
        &life.play(),
    );
}
