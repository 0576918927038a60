//! The same on a software TPM: tpm2-pkcs11 takes fewer attributes than SoftHSM and has tokens of its own
//! kind.

use p11_client::{
    ErrorCode,
    message::{Class, KeySpec, KeyType},
};
use p11_fault_module::{Faults, Function::C_GenerateKeyPair};
use p11_proto::Identity;
use p11_tests::{
    fixture::{PIN, SO_PIN, TestClient, refused},
    server::Server,
    tools::run,
    tpm::Tpm,
};

use crate::manager::{Manager, P256, pin, token};

const NEW: &str = "305419";

struct Setup {
    tpm: Tpm,
    faults: Faults,
    server: Server,
}

/// A TPM with the token `device`, and a server.
fn setup() -> Setup {
    let tpm = Tpm::new();
    tpm.init_token("device", PIN, SO_PIN);
    let faults = Faults::new(tpm.module());
    let server = Server::builder()
        .module(&Faults::module_path())
        .envs(tpm.envs())
        .envs(faults.envs())
        .pin(PIN)
        .start();
    server.secrets().add_all(tpm.secrets());
    server.secrets().add(NEW);
    Setup {
        tpm,
        faults,
        server,
    }
}

#[test]
fn keys_are_made_listed_used_and_deleted() {
    let setup = setup();
    let manager = Manager::of(&setup.server);
    let client = TestClient::of(&setup.server);
    let rsa = KeySpec::new(KeyType::Rsa, 2048);
    for spec in [P256, rsa] {
        let before = setup.faults.count(C_GenerateKeyPair);
        let made = manager
            .create("pkcs11:token=device", spec, "made", Some(&[0xa1, 0xb2]))
            .unwrap();
        assert_eq!(setup.faults.count(C_GenerateKeyPair), before + 1);
        assert_eq!(made.identity, Identity::of(&made.spki).unwrap());

        let listed = manager.keys("pkcs11:object=made").unwrap();
        let classes: Vec<_> = listed.iter().map(|key| key.class).collect();
        assert_eq!(classes, [Class::Private, Class::Public]);
        for half in &listed {
            assert_eq!((half.key_type, half.bits), (spec.key_type, spec.bits));
            assert_eq!(half.id, [0xa1, 0xb2]);
        }
        assert_eq!(listed[0].can_sign, Some(true));
        assert_eq!(listed[0].extractable, Some(false));

        // As another program sees it.
        let seen = run(setup
            .tpm
            .command("p11tool")
            .arg("--provider")
            .arg(setup.tpm.module())
            .env("GNUTLS_PIN", PIN)
            .args(["--batch", "--login", "--list-all", &made.uri]));
        let seen = String::from_utf8(seen).unwrap();
        for flag in ["CKA_PRIVATE", "CKA_NEVER_EXTRACTABLE", "CKA_SENSITIVE"] {
            assert!(seen.contains(flag), "no {flag} in: {seen}");
        }

        let key = client.open(&made.uri).unwrap();
        for scheme in &key.told().schemes {
            key.sign_with(*scheme).unwrap();
        }
        assert_eq!(manager.delete(&made.uri).unwrap().len(), 2);
        assert_eq!(manager.keys("pkcs11:object=made").unwrap(), []);
        refused(key.sign(), ErrorCode::KeyNotFound);
    }
}

#[test]
fn a_token_is_made_and_its_pin_changed() {
    let setup = setup();
    let manager = Manager::of(&setup.server);
    let client = TestClient::of(&setup.server);
    let ready = manager.init(token("new")).unwrap();
    assert!(ready.created);
    assert!(!manager.init(token("new")).unwrap().created);
    let made = manager.create(&ready.uri, P256, "made", None).unwrap();
    let key = client.open(&made.uri).unwrap();
    key.sign().unwrap();

    let uri = Some(ready.uri.as_str().into());
    let changed = manager.change_pin(pin(NEW).uri(uri)).unwrap();
    assert_eq!(changed.uri, ready.uri);
    key.sign().unwrap();
    let uri = Some(ready.uri.as_str().into());
    let so_pin = Some(PIN.into());
    let reset = pin(PIN).uri(uri).so_pin(so_pin).reset(true);
    manager.change_pin(reset).unwrap();
    key.sign().unwrap();
    refused(
        client.open_with(&made.uri, Some(NEW)),
        ErrorCode::PinIncorrect,
    );
    assert_eq!(setup.tpm.lockout_counter(), 0);
}
