//! DeleteKey: both halves of one pair go, and nothing else.

use std::path::Path;

use p11_client::{ErrorCode, message::Class};
use p11_fault_module::{
    Function::{C_DestroyObject, C_Login, C_SignInit},
    cryptoki_sys::*,
    on,
};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    tools::run,
};

/// What other programs see on the token: label and type of each object.
fn objects(fixture: &Fixture) -> Vec<String> {
    let listed = run(fixture
        .hsm
        .pkcs11_tool(&fixture.token)
        .arg("--list-objects"));
    let listed = String::from_utf8(listed).unwrap();
    let mut objects = Vec::new();
    for line in listed.lines() {
        if let Some((kind, _)) = line.to_lowercase().split_once(" object") {
            objects.push(kind.to_owned());
        } else if let Some(label) = line.trim().strip_prefix("label:") {
            let kind = objects.pop().unwrap();
            objects.push(format!("{}: {kind}", label.trim().trim_matches('\'')));
        }
    }
    objects.sort();
    objects
}

fn store_data(fixture: &Fixture, label: &str) {
    run(fixture
        .hsm
        .pkcs11_tool(&fixture.token)
        .args(["--type", "data", "--label", label, "--write-object"])
        .arg(Path::new("/etc/hostname")));
}

#[test]
fn both_halves_are_deleted_and_certificates_and_data_objects_stay() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.store_certificate();
    store_data(&fixture, "key");
    fixture.add_key(KeyKind::P256, "other", 2);

    let server = fixture.start();
    let deleted = server.client().delete_key("pkcs11:object=key").unwrap();
    let name = |class: &str| {
        format!(
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={};token=device;\
             id=%01;object=key;type={class}",
            fixture.token.serial
        )
    };
    assert_eq!(deleted, [name("private"), name("public")]);
    assert_eq!(
        objects(&fixture),
        [
            "key: certificate",
            "key: data",
            "other: private key",
            "other: public key"
        ]
    );
}

#[test]
fn a_deleted_key_signs_no_more() {
    let (fixture, server, key) = Fixture::steady();
    server.client().delete_key(KEY).unwrap();
    let before = fixture.faults.count(C_SignInit);
    refused(key.sign(), ErrorCode::KeyNotFound);
    // Its handle may be another key's by now.
    assert_eq!(fixture.faults.count(C_SignInit), before);
}

#[test]
fn what_is_not_there_is_deleted_with_success() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    for uri in [
        "pkcs11:object=none",
        "pkcs11:object=key;id=%02",
        "pkcs11:object=key;type=cert",
    ] {
        assert_eq!(client.delete_key(uri).unwrap(), [""; 0]);
    }
    assert_eq!(fixture.faults.count(C_DestroyObject), 0);
    let told = refused(
        client.delete_key("pkcs11:token=none;object=key"),
        ErrorCode::TokenNotFound,
    );
    assert!(told.message.contains("No token matching"), "{told}");
}

#[test]
fn a_request_that_names_no_object_is_refused() {
    let fixture = Fixture::new(KeyKind::P256);
    // Not even where the server's own URI names one.
    let server = fixture.server().pin(PIN).uri(KEY).start();
    let told = refused(
        server.client().delete_key("pkcs11:token=device"),
        ErrorCode::BadRequest,
    );
    assert!(told.message.contains("object=… or id=…"), "{told}");
}

#[test]
fn a_half_without_the_other_is_deleted_too() {
    for class in [Class::Private, Class::Public] {
        let fixture = Fixture::new(KeyKind::P256);
        fixture.hsm.delete(&fixture.token, class, &[1]);
        let server = fixture.start();
        let deleted = server.client().delete_key(KEY).unwrap();
        assert_eq!(deleted.len(), 1, "{deleted:?}");
        assert_eq!(objects(&fixture), [""; 0]);
    }
}

#[test]
fn the_halves_of_a_pair_may_have_different_labels() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.hsm.delete(&fixture.token, Class::Public, &[1]);
    fixture
        .hsm
        .store_public_key(&fixture.token, "renamed", &[1], &fixture.key.spki);
    let server = fixture.start();
    let deleted = server.client().delete_key(KEY).unwrap();
    assert_eq!(deleted.len(), 2, "{deleted:?}");
    assert_eq!(objects(&fixture), [""; 0]);
}

#[test]
fn a_half_of_another_id_is_no_part_of_the_pair() {
    let fixture = Fixture::new(KeyKind::P256);
    // Of the same label, and the named key has no public half of its own.
    fixture.hsm.delete(&fixture.token, Class::Public, &[1]);
    let other = fixture.add_key(KeyKind::P256, "key", 2);
    let server = fixture.start();
    let client = server.client();
    let deleted = client.delete_key("pkcs11:object=key;id=%01").unwrap();
    assert_eq!(deleted.len(), 1, "{deleted:?}");
    assert_eq!(objects(&fixture), ["key: private key", "key: public key"]);
    assert_eq!(client.get_public_key(KEY).unwrap().spki, other.spki);
}

#[test]
fn several_pairs_are_refused_with_their_list() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "key", 2);
    let server = fixture.start();
    let told = refused(server.client().delete_key(KEY), ErrorCode::AmbiguousKey);
    for id in ["id=%01;", "id=%02;"] {
        assert!(told.message.contains(id), "{told}");
    }
    assert_eq!(fixture.faults.count(C_DestroyObject), 0);
}

#[test]
fn halves_of_two_pairs_are_several_pairs() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.hsm.delete(&fixture.token, Class::Public, &[1]);
    fixture
        .hsm
        .store_public_key(&fixture.token, "key", &[2], &fixture.key.spki);
    let server = fixture.start();
    refused(server.client().delete_key(KEY), ErrorCode::AmbiguousKey);
    assert_eq!(fixture.faults.count(C_DestroyObject), 0);
}

#[test]
fn a_deletion_in_part_says_what_went_and_what_did_not() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    let fails = |number| {
        on(C_DestroyObject)
            .every(number)
            .returns(CKR_ACTION_PROHIBITED)
    };

    fixture.faults.set([fails(1)]);
    let told = refused(client.delete_key(KEY), ErrorCode::Module);
    assert!(!told.message.contains("deleted"), "nothing went: {told}");
    assert_eq!(objects(&fixture).len(), 2);

    fixture.faults.set([fails(2)]);
    let told = refused(client.delete_key(KEY), ErrorCode::Module);
    let (gone, left) = told.message.split_once(", but not ").unwrap();
    assert!(
        gone.starts_with("deleted pkcs11:") && gone.contains("type=private"),
        "{told}"
    );
    assert!(left.contains("type=public"), "{told}");
    assert_eq!(told.function.as_deref(), Some("C_DestroyObject"));
    assert_eq!(told.ckr.as_deref(), Some("CKR_ACTION_PROHIBITED"));
    assert_eq!(objects(&fixture), ["key: public key"]);

    // The rest goes with the next request.
    fixture.faults.clear();
    assert_eq!(client.delete_key(KEY).unwrap().len(), 1);
}

#[test]
fn a_wrong_pin_deletes_nothing() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().start();
    let client = server.client().with_pin("000001");
    for _ in 0..5 {
        refused(client.delete_key(KEY), ErrorCode::PinIncorrect);
    }
    assert_eq!(fixture.faults.count(C_Login), 1);
    assert_eq!(fixture.faults.count(C_DestroyObject), 0);
    assert_eq!(client.with_pin(PIN).delete_key(KEY).unwrap().len(), 2);
}
