//! Tokens and keys are managed on a software TPM: tpm2-pkcs11 takes fewer attributes than SoftHSM, and its tokens are
//! others.

use p11_client::{
    ErrorCode,
    message::{ChangePin, Class, InitToken, KeySpec, KeyType},
};
use p11_fault_module::{Faults, Function::C_GenerateKeyPair};
use p11_proto::Identity;
use p11_tests::{
    client::{P256, refused},
    fixture::{PIN, SO_PIN},
    server::Server,
    text::assert_contains,
    tools::run,
    tpm::Tpm,
};

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
    let client = setup.server.client();
    let rsa = KeySpec::new(KeyType::Rsa, 2048);
    for spec in [P256, rsa] {
        let before = setup.faults.count(C_GenerateKeyPair);
        let made = client
            .create_key("pkcs11:token=device", spec, "made", Some(&[0xa1, 0xb2]))
            .unwrap();
        assert_eq!(setup.faults.count(C_GenerateKeyPair), before + 1);
        assert_eq!(made.identity, Identity::of(&made.spki).unwrap());

        let listed = client.list_keys("pkcs11:object=made").unwrap();
        let classes: Vec<_> = listed.iter().map(|key| key.class).collect();
        assert_eq!(classes, [Class::Private, Class::Public]);
        for half in &listed {
            assert_eq!((half.key_type, half.bits), (spec.key_type, spec.bits));
            assert_eq!(half.id, [0xa1, 0xb2]);
        }
        assert_eq!(listed[0].can_sign, Some(true));
        assert_eq!(listed[0].extractable, Some(false));

        // As another program sees it, which wants the NULs that the module pads the model with.
        let uri = "pkcs11:token=device;object=made;type=private";
        let seen = run(setup
            .tpm
            .command("p11tool")
            .arg("--provider")
            .arg(setup.tpm.module())
            .env("GNUTLS_PIN", PIN)
            .args(["--batch", "--login", "--list-all", uri]));
        let seen = String::from_utf8(seen).unwrap();
        assert_contains(
            &seen,
            ["CKA_PRIVATE", "CKA_NEVER_EXTRACTABLE", "CKA_SENSITIVE"],
        );

        let key = client.open(&made.uri).unwrap();
        for scheme in &key.told().schemes {
            key.sign_with(*scheme).unwrap();
        }
        assert_eq!(client.delete_key(&made.uri).unwrap().len(), 2);
        assert_eq!(client.list_keys("pkcs11:object=made").unwrap(), []);
        refused(key.sign(), ErrorCode::KeyNotFound);
    }
}

#[test]
fn a_key_that_the_module_cannot_finish_leaves_nothing_on_the_token() {
    let setup = setup();
    let client = setup.server.client();
    // tpm2-pkcs11 1.9 has the TPM make a P-521 key, and writes its point as DER that is none.
    let p521 = KeySpec::new(KeyType::Ec, 521);
    for _ in 0..2 {
        let made = client.create_key("pkcs11:token=device", p521, "made", None);
        refused(made, ErrorCode::NotSupported);
        assert_eq!(client.list_keys("pkcs11:token=device").unwrap(), []);
    }
    client
        .create_key("pkcs11:token=device", P256, "made", None)
        .unwrap();
}

#[test]
fn a_token_is_made_and_its_pin_changed() {
    let setup = setup();
    let client = setup.server.client();
    let ready = client.init_token(InitToken::new("new")).unwrap();
    assert!(ready.created);
    assert!(!client.init_token(InitToken::new("new")).unwrap().created);
    let made = client.create_key(&ready.uri, P256, "made", None).unwrap();
    let key = client.open(&made.uri).unwrap();
    key.sign().unwrap();

    let uri = Some(ready.uri.as_str().into());
    let changed = client.change_pin(ChangePin::new(NEW).uri(uri)).unwrap();
    assert_eq!(changed.uri, ready.uri);
    key.sign().unwrap();
    let uri = Some(ready.uri.as_str().into());
    let so_pin = Some(PIN.into());
    let reset = ChangePin::new(PIN).uri(uri).so_pin(so_pin).reset(true);
    client.change_pin(reset).unwrap();
    key.sign().unwrap();
    refused(
        client.with_pin(NEW).open(&made.uri),
        ErrorCode::PinIncorrect,
    );
    assert_eq!(setup.tpm.lockout_counter(), 0);
}
