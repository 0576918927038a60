//! NSS's softokn, which needs a string that only p11-kit-proxy hands to it (`x-init-reserved`).

use std::fs;

use p11_fault_module::Faults;
use p11_tests::{
    server::Server,
    tools::{command, pkcs11_module, run},
};

use crate::{
    PIN,
    life::{EVERY_KIND, Life},
    page::assert_told,
    registry::Registry,
};

#[test]
fn nss_plays_its_life() {
    let folder = tempfile::tempdir().unwrap();
    let (database, pin) = (folder.path().join("database"), folder.path().join("pin"));
    fs::create_dir(&database).unwrap();
    fs::write(&pin, PIN).unwrap();
    run(command("certutil")
        .arg("-N")
        .arg("-d")
        .arg(&database)
        .arg("-f")
        .arg(&pin));
    let faults = Faults::new(pkcs11_module("libsoftokn3.so"));
    let reserved = format!(
        "x-init-reserved: configdir='{}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=",
        database.display()
    );
    let registry = Registry::new(&[("nss", &Faults::module_path(), &reserved)]);
    let server = Server::builder()
        .module(&pkcs11_module("p11-kit-proxy.so"))
        .envs(faults.envs())
        .pin(PIN)
        .within(&registry.namespace)
        .start();
    let life = Life {
        server: &server,
        faults: &faults,
        token: "NSS Certificate DB",
        keys: &[],
        kinds: &EVERY_KIND,
    };
    let packages = ["libnss3", "p11-kit-modules"];
    assert_told("NSS softokn through p11-kit-proxy", &packages, &life.play());
}
