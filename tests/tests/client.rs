//! What programs that use `p11-client` meet with the real server: crowds, and keys that are replaced under them.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{sync::Barrier, thread};

use p11_client::{
    Client, Config, Error, Scheme, SigningKey,
    message::{CreateKey, DeleteKey, KeySpec, KeyType},
};
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    verify::verifies,
};
use rustls::{SignatureScheme, sign::SigningKey as _};

const CROWD: usize = 200;
const SIGNATURES: usize = 3;

#[test]
fn of_two_hundred_clients_at_once_none_is_turned_away() {
    let (fixture, server) = Fixture::started();
    let start = Barrier::new(CROWD);
    let sign = || {
        start.wait();
        let client = Client::new(Config::new(server.socket()));
        let key = SigningKey::open(&client, KEY, None, None)?;
        for _ in 0..SIGNATURES {
            let signature = key.sign(Scheme::EcdsaP256Sha256, b"message")?;
            let scheme = Scheme::EcdsaP256Sha256.number();
            assert!(verifies(&fixture.key.spki, scheme, b"message", &signature));
        }
        Ok(())
    };
    let failed: Vec<Error> = thread::scope(|scope| {
        let crowd: Vec<_> = (0..CROWD).map(|_| scope.spawn(sign)).collect();
        let ended = crowd.into_iter().map(|client| client.join().unwrap());
        ended.filter_map(Result::err).collect()
    });
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
}

/// The recipe of the crate's documentation.
fn key_changed(error: &(dyn std::error::Error + 'static)) -> bool {
    Error::in_handshake(error).is_some_and(Error::is_key_changed)
}

#[test]
fn a_program_that_follows_the_recipe_goes_on_with_the_key_that_replaced_its_own() {
    let (_fixture, server) = Fixture::started();
    let client = Client::new(Config::new(server.socket()).pin(p11_client::Pin::from(PIN)));
    server.secrets().add(PIN);
    let open = || SigningKey::open(&client, KEY, None, None).unwrap();
    let sign = |key: &SigningKey| {
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        signer.unwrap().sign(b"message")
    };
    let before = open();
    sign(&before).unwrap();
    // Under a random id, as CreateKey gives it.
    client.delete_key(DeleteKey::new(KEY)).unwrap();
    let kind = KeySpec::new(KeyType::Ec, 256);
    let create = CreateKey::new("pkcs11:token=device", kind, "key");
    let created = client.create_key(create).unwrap();

    let error = sign(&before).unwrap_err();
    assert!(key_changed(&error), "{error}");
    let after = open();
    assert_eq!(after.identity(), created.identity);
    let signature = sign(&after).unwrap();
    let scheme = Scheme::EcdsaP256Sha256.number();
    assert!(verifies(&created.spki, scheme, b"message", &signature));
}
