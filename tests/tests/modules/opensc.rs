//! OpenSC with a PIV card in a reader of pcscd.

use std::sync::{Arc, Mutex};

use p11_client::ErrorCode;
use p11_fault_module::Faults;
use p11_tests::{
    card_reader::CardReader,
    client::refused,
    keys::KeyKind,
    piv_card::{PivCard, Place},
    server::Server,
    tools::pkcs11_module,
    wait::wait_until,
};

use crate::{
    PIN,
    life::{EVERY_KIND, Life},
    page::assert_told,
};

/// OpenSC calls it by the name in the first certificate.
const TOKEN: &str = "a device";
const SIGNS: &str = "pkcs11:token=a%20device;object=SIGN%20key";

struct Setup {
    faults: Faults,
    reader: CardReader,
    card: Arc<Mutex<PivCard>>,
}

/// A card with keys of several kinds, in a reader.
fn setup() -> Setup {
    let mut card = PivCard::new(PIN);
    card.add_key(Place::Authentication, KeyKind::Rsa2048);
    card.add_key(Place::Signature, KeyKind::P256);
    card.add_key(Place::Card, KeyKind::P384);
    let card = Arc::new(Mutex::new(card));
    let mut reader = CardReader::new();
    reader.insert(&card);
    let faults = Faults::new(pkcs11_module("opensc-pkcs11.so"));
    Setup {
        faults,
        reader,
        card,
    }
}

impl Setup {
    /// A server that sees the card.
    fn server(&self) -> Server {
        let server = self.start();
        let client = server.client();
        wait_until(|| !client.list_tokens().is_empty());
        server
    }

    fn start(&self) -> Server {
        Server::builder()
            .module(&Faults::module_path())
            .envs(self.faults.envs())
            .pin(PIN)
            .within(self.reader.namespace())
            .start()
    }
}

#[test]
fn opensc_plays_its_life_with_a_piv_card() {
    let setup = setup();
    let server = setup.server();
    let life = Life {
        server: &server,
        faults: &setup.faults,
        token: TOKEN,
        keys: &[
            ("RSA 2048", "PIV%20AUTH%20key"),
            ("EC 256", "SIGN%20key"),
            ("EC 384", "CARD%20AUTH%20key"),
        ],
        kinds: &EVERY_KIND,
    };
    let packages = ["opensc-pkcs11", "pcscd", "vsmartcard-vpcd"];
    assert_told("OpenSC, PIV card", &packages, &life.play());
}

#[test]
fn keys_of_a_card_sign_again_when_it_was_pulled_and_when_pcscd_was_restarted() {
    let mut setup = setup();
    let server = setup.server();
    let key = server.client().open(SIGNS).unwrap();
    key.sign().unwrap();
    setup.reader.remove();
    assert!(key.sign().is_err());
    setup.reader.insert(&setup.card);
    wait_until(|| key.sign().is_ok());
    setup.reader.stop_daemon();
    setup.reader.start_daemon();
    setup.reader.insert(&setup.card);
    wait_until(|| key.sign().is_ok());
}

#[test]
fn a_card_is_found_when_pcscd_comes_up_after_the_server() {
    let mut setup = setup();
    setup.reader.stop_daemon();
    let server = setup.start();
    let client = server.client();
    refused(client.open(SIGNS), ErrorCode::TokenNotFound);
    setup.reader.start_daemon();
    setup.reader.insert(&setup.card);
    wait_until(|| client.open(SIGNS).is_ok());
}
