//! Whatever asks for the key of a URI is told of the same one.

use p11_client::{Identity, UriText, message::Class};
use p11_proto::tedge1;
use p11_tests::{
    client::TestClient,
    fixture::{Fixture, PIN},
    keys::{KeyKind, KeySpec},
    pki::{Pki, to_der},
    raw_client::ask_tedge1,
    server::Server,
};

const DEVICE: &str = "pkcs11:token=device";

/// The public key by OpenKey, by GetPublicKey, and by message 6 of a released client, each of a server that has seen
/// nothing yet.
fn told(start: &dyn Fn() -> Server, pin: Option<&str>, uri: &str) -> [Identity; 3] {
    let with_pin = |server: &Server| -> TestClient {
        match pin {
            Some(pin) => server.client().with_pin(pin),
            None => server.client(),
        }
    };
    let opened = with_pin(&start()).open(uri).unwrap().told().identity;
    let got = with_pin(&start()).get_public_key(uri).unwrap().identity;
    let server = start();
    let with_pin = match pin {
        Some(pin) => format!("{uri}?pin-value={pin}"),
        None => uri.into(),
    };
    let request = tedge1::Request::GetPublicKeyPem(Some(UriText::from(with_pin)));
    let tedge1::Response::GetPublicKeyPem(pem) = ask_tedge1(server.socket(), &request) else {
        panic!("no public key");
    };
    let old = tedge1::public_key_from_legacy_pem(&pem).unwrap();
    [opened, got, old.identity()]
}

#[test]
fn of_a_key_and_a_certificate_of_the_authority_the_key_is_told() {
    for label in ["a certificate", "z certificate"] {
        let fixture = Fixture::new(KeyKind::P256);
        let key = Identity::of(&fixture.key.spki).unwrap();
        let pki = Pki::new();
        let certificate = to_der(&pki.authority());
        fixture
            .hsm
            .import_certificate(&fixture.token, label, &[9], &certificate);
        let with_pin = || fixture.start();
        let without_pin = || fixture.server().start();
        for uri in [DEVICE, "pkcs11:", "pkcs11:token=device;type=private"] {
            for told in [
                told(&with_pin, None, uri),
                told(&without_pin, Some(PIN), uri),
            ] {
                assert_eq!(told, [key; 3], "{label}, {uri}");
            }
        }
        // Without any PIN the public half is what there is to tell.
        let server = without_pin();
        let public = server.client().get_public_key(DEVICE).unwrap();
        assert_eq!(public.identity, key);
    }
}

#[test]
fn of_several_keys_the_same_is_told() {
    let fixture = Fixture::new(KeyKind::P256);
    for (label, id) in [("another", 3), ("zebra", 2)] {
        fixture.add_key(KeyKind::P256, label, id);
    }
    // A public key of a pair whose private half is elsewhere.
    let gone = fixture
        .hsm
        .generate(&fixture.token, &KeySpec::new(KeyKind::P256, "aaa", &[4]));
    fixture.hsm.delete(&fixture.token, Class::Private, &[4]);
    let start = || fixture.start();
    let [opened, got, old] = told(&start, None, DEVICE);
    assert_ne!(opened, Identity::of(&gone.spki).unwrap());
    assert_eq!(opened, got);
    assert_eq!(opened, old);
}
