//! SoftHSM2 with its file store.

use p11_fault_module::Faults;
use p11_tests::{server::Server, softhsm::SoftHsm};

use crate::{
    PIN, SO_PIN,
    life::{EVERY_KIND, Life},
    page::assert_told,
};

#[test]
fn softhsm_plays_its_life() {
    let hsm = SoftHsm::new();
    hsm.init_token("device", PIN, SO_PIN);
    let faults = Faults::new(hsm.module());
    let server = Server::builder()
        .softhsm_with_faults(&hsm, &faults)
        .pin(PIN)
        .start();
    let life = Life {
        server: &server,
        faults: &faults,
        token: "device",
        keys: &[],
        kinds: &EVERY_KIND,
    };
    assert_told("SoftHSM, file store", &["softhsm2"], &life.play());
}
