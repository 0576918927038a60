//! CreateKey: a key pair that only signs and never leaves its token.

use std::{process::Command, sync::Barrier, thread};

use p11_client::{
    ErrorCode,
    message::{Class, KeySpec, KeyType, PublicKeyEntry},
};
use p11_fault_module::{
    Function::{C_DestroyObject, C_GenerateKeyPair, C_Login},
    cryptoki_sys::*,
    object, on, token,
};
use p11_proto::Identity;
use p11_tests::{
    client::{P256, refused},
    fixture::{Fixture, PIN},
    keys::{self, KeyKind},
    softhsm::{SoftHsm, Token},
    text::assert_contains,
    tools::run,
};

const DEVICE: &str = "pkcs11:token=device";

fn kind(key_type: KeyType, bits: u32) -> KeySpec {
    KeySpec::new(key_type, bits)
}

/// Other programs see the key of id a1b2 as it should be.
fn is_seen(hsm: &SoftHsm, token: &Token, made: &PublicKeyEntry) {
    let said = |tool: &mut Command| String::from_utf8(run(tool)).unwrap();
    for (class, usage, access) in [
        (
            "privkey",
            "Usage:      sign\n",
            "sensitive, always sensitive, never extractable, local\n",
        ),
        ("pubkey", "verify", "local\n"),
    ] {
        let mut tool = hsm.pkcs11_tool(token);
        let all = said(tool.args(["--list-objects", "--type", class]));
        let mut objects = all.split(" Key Object");
        let its = objects.find(|object| object.contains("ID:         a1b2\n"));
        let its = its.unwrap_or_else(|| panic!("no {class} of this id: {all}"));
        assert_contains(its, ["label:      made\n", usage, access]);
    }
    let private = said(hsm.p11tool(token).args(["--list-all", &made.uri]));
    assert_contains(
        &private,
        ["CKA_PRIVATE", "CKA_NEVER_EXTRACTABLE", "CKA_SENSITIVE"],
    );
    let spec = keys::KeySpec::new(KeyKind::P256, "made", &[0xa1, 0xb2]);
    assert!(made.spki == hsm.public_key(token, &spec));
}

/// Makes a key of this kind and holds what is answered against what others see of it.
fn check(fixture: &Fixture, spec: KeySpec) {
    let server = fixture.start();
    let client = server.client();
    let made = client.create_key(DEVICE, spec, "made", Some(&[0xa1, 0xb2]));
    let made = made.unwrap();
    assert_eq!(made.key_type, spec.key_type);
    assert!(made.bits == spec.bits || spec.key_type == KeyType::Ed25519);
    assert_eq!(made.identity, Identity::of(&made.spki).unwrap());
    assert_eq!(
        made.uri,
        format!(
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={};token=device;\
             id=%A1%B2;object=made;type=private",
            fixture.token.serial
        )
    );
    is_seen(&fixture.hsm, &fixture.token, &made);

    // And it signs at once, with every scheme that is told.
    let key = server.client().open(&made.uri).unwrap();
    assert_eq!(key.told().identity, made.identity);
    for scheme in &key.told().schemes {
        key.sign_with(*scheme).unwrap();
    }
    client.delete_key(&made.uri).unwrap();
}

#[test]
fn elliptic_curve_keys_are_made_and_sign() {
    let fixture = Fixture::new(KeyKind::P256);
    for bits in [256, 384, 521] {
        check(&fixture, kind(KeyType::Ec, bits));
    }
    check(&fixture, kind(KeyType::Ed25519, 0));
}

#[test]
fn rsa_keys_are_made_and_sign() {
    let fixture = Fixture::new(KeyKind::P256);
    for bits in [2048, 3072, 4096] {
        check(&fixture, kind(KeyType::Rsa, bits));
    }
}

#[test]
fn other_kinds_are_refused_with_a_list_of_those_that_can_be_made() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    for spec in [
        kind(KeyType::Ec, 255),
        kind(KeyType::Rsa, 1024),
        kind(KeyType::Unknown, 256),
    ] {
        let told = refused(
            client.create_key(DEVICE, spec, "made", None),
            ErrorCode::BadRequest,
        );
        assert_contains(&told.message, ["RSA of 2048, 3072 and 4096"]);
    }
    assert_eq!(fixture.faults.count(C_GenerateKeyPair), 0);
}

#[test]
fn without_an_id_each_key_gets_20_random_bytes() {
    let (_fixture, server) = Fixture::started();
    let client = server.client();
    // A label in use is no hindrance.
    for _ in 0..2 {
        client.create_key(DEVICE, P256, "same", None).unwrap();
    }
    let mut halves = client.list_keys("pkcs11:object=same").unwrap();
    assert_eq!(halves.len(), 4);
    assert!(halves.iter().all(|half| half.id.len() == 20));
    halves.dedup_by(|a, b| a.id == b.id);
    assert_eq!(halves.len(), 2);
}

#[test]
fn an_id_in_use_is_refused() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    let again = || client.create_key(DEVICE, P256, "made", Some(&[1]));
    let told = refused(again(), ErrorCode::AlreadyExists);
    assert!(told.message.contains("choose another id"), "{told}");
    // One half is enough.
    fixture.hsm.delete(&fixture.token, Class::Public, &[1]);
    refused(again(), ErrorCode::AlreadyExists);
    let told = refused(
        client.create_key(DEVICE, P256, "made", Some(&[])),
        ErrorCode::BadRequest,
    );
    assert!(told.message.contains("at least one byte"), "{told}");
    assert_eq!(fixture.faults.count(C_GenerateKeyPair), 0);
}

#[test]
fn of_clients_that_want_the_same_id_one_gets_it() {
    let (fixture, server) = Fixture::started();
    fixture.faults.set([on(C_GenerateKeyPair).delays(50)]);
    let together = Barrier::new(4);
    let create = || {
        let client = server.client();
        client.list_tokens();
        together.wait();
        match client.create_key(DEVICE, P256, "made", Some(&[7])) {
            Ok(_) => true,
            Err(failure) if failure.code == ErrorCode::AlreadyExists => false,
            Err(other) => panic!("{other}"),
        }
    };
    let made = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().unwrap());
        outcomes.filter(|made| *made).count()
    });
    assert_eq!(made, 1);
    assert_eq!(server.client().list_keys("pkcs11:id=%07").unwrap().len(), 2);
}

#[test]
fn a_module_may_demand_more_in_the_private_template() {
    for (key_type, bits) in [(KeyType::Ec, 256), (KeyType::Rsa, 2048)] {
        let fixture = Fixture::new(KeyKind::P256);
        let demands = |attribute| token("device").demands_in_private_template(attribute);
        fixture.faults.set(match key_type {
            KeyType::Ec => vec![demands(CKA_CLASS), demands(CKA_EC_PARAMS)],
            _ => vec![demands(CKA_CLASS)],
        });
        let server = fixture.start();
        let made = server
            .client()
            .create_key(DEVICE, kind(key_type, bits), "made", Some(&[0xa1, 0xb2]))
            .unwrap();
        is_seen(&fixture.hsm, &fixture.token, &made);
        assert_eq!(fixture.faults.count(C_GenerateKeyPair), 2);
    }
}

#[test]
fn a_module_may_refuse_to_be_told_what_the_private_key_is_as_long_as_it_is_so() {
    for (attribute, refusal) in [
        (CKA_UNWRAP, CKR_ATTRIBUTE_TYPE_INVALID),
        (CKA_DERIVE, CKR_TEMPLATE_INCONSISTENT),
        (CKA_SENSITIVE, CKR_ATTRIBUTE_READ_ONLY),
        (CKA_EXTRACTABLE, CKR_ATTRIBUTE_VALUE_INVALID),
        (CKA_PRIVATE, CKR_ATTRIBUTE_READ_ONLY),
    ] {
        let (fixture, server) = Fixture::started();
        let rule = token("device").refuses_in_template(attribute, refusal);
        // A module that would not be told sets it by itself, which SoftHSM does not.
        let sensitive = object(CKO_PRIVATE_KEY, "made").answers(CKA_SENSITIVE, [1]);
        fixture.faults.set([rule.clone(), sensitive]);
        let create = |label| {
            server
                .client()
                .create_key(DEVICE, P256, label, Some(label.as_bytes()))
        };
        let made = create("made").unwrap_or_else(|failure| panic!("{rule:?}: {failure}"));
        let spec = keys::KeySpec::new(KeyKind::P256, "made", b"made");
        assert!(made.spki == fixture.hsm.public_key(&fixture.token, &spec));
        server.client().open(&made.uri).unwrap().sign().unwrap();

        // The module's word for what it would not be told.
        let private = || object(CKO_PRIVATE_KEY, "weak");
        let told: Vec<(_, &[u8])> = match attribute {
            CKA_SENSITIVE | CKA_EXTRACTABLE => {
                vec![(CKA_SENSITIVE, &[0]), (CKA_EXTRACTABLE, &[1])]
            }
            CKA_PRIVATE => vec![(CKA_PRIVATE, &[0])],
            _ => continue,
        };
        for (attribute, value) in told {
            let says = private().answers(attribute, value);
            for answer in [says, private().hides(attribute)] {
                fixture.faults.set([rule.clone(), answer.clone()]);
                let told = refused(create("weak"), ErrorCode::NotSupported);
                assert_contains(&told.message, ["not kept", "CKA_SENSITIVE"]);
                assert_eq!(left(&fixture, "weak"), 0, "{answer:?}");
            }
        }
    }
}

#[test]
fn a_key_that_is_not_as_it_was_asked_for_is_not_kept() {
    let (fixture, server) = Fixture::started();
    for (attribute, value) in [(CKA_SENSITIVE, 0), (CKA_EXTRACTABLE, 1)] {
        let answers = object(CKO_PRIVATE_KEY, "made").answers(attribute, [value]);
        fixture.faults.set([answers]);
        let made = server.client().create_key(DEVICE, P256, "made", None);
        refused(made, ErrorCode::NotSupported);
        assert_eq!(left(&fixture, "made"), 0);
    }
}

#[test]
fn edwards25519_is_asked_for_by_name_or_by_object_identifier() {
    for refusal in [
        CKR_ATTRIBUTE_VALUE_INVALID,
        CKR_CURVE_NOT_SUPPORTED,
        CKR_DOMAIN_PARAMS_INVALID,
        CKR_TEMPLATE_INCONSISTENT,
    ] {
        let (fixture, server) = Fixture::started();
        let rule = token("device").wants_curve_by_oid(refusal);
        fixture.faults.set([rule]);
        let ed25519 = kind(KeyType::Ed25519, 0);
        let made = server.client().create_key(DEVICE, ed25519, "made", None);
        let made = made.unwrap();
        assert_eq!(made.key_type, KeyType::Ed25519);
        server.client().open(&made.uri).unwrap().sign().unwrap();
        assert_eq!(fixture.faults.count(C_GenerateKeyPair), 2);
    }
}

#[test]
fn a_module_that_makes_no_such_keys_or_none_is_told_as_that() {
    let (fixture, server) = Fixture::started();
    for (refusal, name, next) in [
        (
            CKR_ATTRIBUTE_VALUE_INVALID,
            "CKR_ATTRIBUTE_VALUE_INVALID",
            "ask for another",
        ),
        (
            CKR_CURVE_NOT_SUPPORTED,
            "CKR_CURVE_NOT_SUPPORTED",
            "ask for another",
        ),
        (
            CKR_FUNCTION_NOT_SUPPORTED,
            "CKR_FUNCTION_NOT_SUPPORTED",
            "own tool",
        ),
        (
            CKR_TOKEN_WRITE_PROTECTED,
            "CKR_TOKEN_WRITE_PROTECTED",
            "own tool",
        ),
    ] {
        fixture.faults.set([on(C_GenerateKeyPair).returns(refusal)]);
        let made = server.client().create_key(DEVICE, P256, "made", None);
        let told = refused(made, ErrorCode::NotSupported);
        assert_contains(&told.message, [name, next]);
    }
    // One that has no such mechanism may say anything.
    fixture.faults.set([
        token("device").does_not_list(CKM_EC_KEY_PAIR_GEN),
        on(C_GenerateKeyPair).returns(CKR_GENERAL_ERROR),
    ]);
    let made = server.client().create_key(DEVICE, P256, "made", None);
    let told = refused(made, ErrorCode::NotSupported);
    assert_contains(&told.message, ["CKR_GENERAL_ERROR", "own tool"]);
}

#[test]
fn no_other_failure_is_answered_by_another_try() {
    let (fixture, server) = Fixture::started();
    let client = server.client();
    for (ckr, name) in [
        (CKR_DEVICE_MEMORY, "CKR_DEVICE_MEMORY"),
        (CKR_SESSION_HANDLE_INVALID, "CKR_SESSION_HANDLE_INVALID"),
    ] {
        let before = fixture.faults.count(C_GenerateKeyPair);
        fixture
            .faults
            .set([on(C_GenerateKeyPair).next(1).returns(ckr)]);
        let told = refused(
            client.create_key(DEVICE, P256, "made", None),
            ErrorCode::Module,
        );
        assert_eq!(told.function.as_deref(), Some("C_GenerateKeyPair"));
        assert_eq!(told.ckr.as_deref(), Some(name));
        assert_eq!(fixture.faults.count(C_GenerateKeyPair), before + 1);
    }
    fixture.faults.clear();
    client.create_key(DEVICE, P256, "made", None).unwrap();
}

#[test]
fn a_wrong_pin_makes_no_key() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().start();
    let wrong = server.client().with_pin("000001");
    for _ in 0..5 {
        refused(
            wrong.create_key(DEVICE, P256, "made", None),
            ErrorCode::PinIncorrect,
        );
    }
    assert_eq!(fixture.faults.count(C_Login), 1);
    assert_eq!(fixture.faults.count(C_GenerateKeyPair), 0);
    let right = server.client().with_pin(PIN);
    right.create_key(DEVICE, P256, "made", None).unwrap();
}

/// The objects of this label that another program finds.
fn left(fixture: &Fixture, label: &str) -> usize {
    let mut tool = fixture.hsm.pkcs11_tool(&fixture.token);
    let all = String::from_utf8(run(tool.arg("--list-objects"))).unwrap();
    all.matches(&format!("label:      {label}\n")).count()
}

#[test]
fn a_pair_that_cannot_be_read_back_is_destroyed() {
    let made = || object(CKO_PUBLIC_KEY, "made");
    for rule in [
        made().hides(CKA_EC_POINT),
        made().fails(CKA_EC_POINT, CKR_DEVICE_ERROR),
        made().answers(CKA_EC_POINT, [7; 3]),
        made().answers(CKA_EC_PARAMS, [7; 3]),
    ] {
        let (fixture, server) = Fixture::started();
        let client = server.client();
        fixture.faults.set([rule.clone()]);
        for _ in 0..2 {
            client.create_key(DEVICE, P256, "made", None).unwrap_err();
            assert_eq!(left(&fixture, "made"), 0, "{rule:?}");
        }
        fixture.faults.clear();
        client.create_key(DEVICE, P256, "made", None).unwrap();
        assert_eq!(left(&fixture, "made"), 2);
    }
}

#[test]
fn a_pair_that_a_failed_call_has_left_is_destroyed() {
    let (fixture, server) = Fixture::started();
    let fails = on(C_GenerateKeyPair).after().returns(CKR_DEVICE_ERROR);
    for spec in [P256, kind(KeyType::Rsa, 2048), kind(KeyType::Ed25519, 0)] {
        fixture.faults.set([fails.clone()]);
        let failed = server.client().create_key(DEVICE, spec, "made", None);
        let failure = refused(failed, ErrorCode::Module);
        assert_contains(
            &failure.message,
            ["C_GenerateKeyPair returned CKR_DEVICE_ERROR"],
        );
        assert_eq!(left(&fixture, "made"), 0);
    }
    // What is left after all is named.
    let stays = on(C_DestroyObject).returns(CKR_ACTION_PROHIBITED);
    fixture.faults.set([fails, stays]);
    let failure = server.client().create_key(DEVICE, P256, "made", None);
    assert_contains(
        &failure.unwrap_err().message,
        ["private key", "public key", "delete it"],
    );
}

#[test]
fn a_pair_that_cannot_be_destroyed_either_is_named() {
    let hidden = object(CKO_PUBLIC_KEY, "made").hides(CKA_EC_POINT);
    // Both halves, one of them.
    for (calls, named, count) in [
        (2, &["private key", "public key"][..], 2),
        (1, &["private key"][..], 1),
    ] {
        let (fixture, server) = Fixture::started();
        let client = server.client();
        let stays = on(C_DestroyObject).next(calls);
        fixture
            .faults
            .set([hidden.clone(), stays.returns(CKR_ACTION_PROHIBITED)]);
        let failure = client.create_key(DEVICE, P256, "made", None).unwrap_err();
        let message = &failure.message;
        assert_contains(message, ["\"made\"", "CKR_ACTION_PROHIBITED", "delete it"]);
        assert_contains(message, named.iter().copied());
        assert_eq!(left(&fixture, "made"), count);
    }
}
