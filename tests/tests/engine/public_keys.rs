//! The public key of a private one, in whichever form and place a module keeps it. All of these lead
//! to the same bytes, those that p11tool and openssl read from the token.

use p11_client::{ErrorCode, message::Class};
use p11_fault_module::{Rule, cryptoki_sys::*, object};
use p11_tests::{
    client::refused,
    fixture::{Fixture, KEY},
    keys::KeyKind,
    tools::run,
};

const BOTH: [CK_OBJECT_CLASS; 2] = [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY];

/// With these faults the key is the same and signs.
#[track_caller]
fn is_the_same(fixture: &Fixture, rules: impl IntoIterator<Item = Rule>) {
    fixture.faults.set(rules);
    let server = fixture.start();
    let key = server.client().open(KEY).unwrap();
    assert_eq!(key.told().spki.as_ref(), fixture.key.spki);
    key.sign().unwrap();
}

/// With these faults there is no key, and the client is told which one cannot be used, and why.
fn is_none(fixture: &Fixture, rules: impl IntoIterator<Item = Rule>, why: &str) {
    fixture.faults.set(rules);
    let server = fixture.start();
    let failure = refused(server.client().open(KEY), ErrorCode::KeyNotFound);
    assert!(failure.message.contains(why), "{failure}");
    assert!(failure.message.contains("object=key"), "{failure}");
}

fn printable(name: &str) -> Vec<u8> {
    [&[0x13, name.len() as u8], name.as_bytes()].concat()
}

/// The point at the end of a public key, without a wrapping.
fn point(fixture: &Fixture) -> Vec<u8> {
    let length = match fixture.key.spec.kind {
        KeyKind::P256 => 65,
        KeyKind::Ed25519 => 32,
        _ => panic!("only for the keys of these tests"),
    };
    fixture.key.spki[fixture.key.spki.len() - length..].into()
}

#[test]
fn a_curve_may_be_given_by_its_name() {
    for (kind, name) in [
        (KeyKind::P256, "secp256r1"),
        (KeyKind::P384, "secp384r1"),
        (KeyKind::P521, "secp521r1"),
        (KeyKind::Ed25519, "edwards25519"),
    ] {
        let fixture = Fixture::new(kind);
        let rule = |class| object(class, "key").answers(CKA_EC_PARAMS, printable(name));
        is_the_same(&fixture, BOTH.map(rule));
    }
}

#[test]
fn edwards25519_may_be_given_by_either_object_identifier() {
    const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
    const EDWARDS25519: [u8; 11] = [
        0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01,
    ];
    let fixture = Fixture::new(KeyKind::Ed25519);
    for oid in [&ED25519[..], &EDWARDS25519] {
        let rule = |class| object(class, "key").answers(CKA_EC_PARAMS, oid);
        is_the_same(&fixture, BOTH.map(rule));
    }
}

#[test]
fn a_point_may_be_raw_or_in_an_octet_or_bit_string() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let fixture = Fixture::new(kind);
        let raw = point(&fixture);
        let length = raw.len() as u8;
        let octets = [&[0x04, length], raw.as_slice()].concat();
        let bits = [&[0x03, length + 1, 0], raw.as_slice()].concat();
        for form in [raw, octets, bits] {
            let rule = |class| object(class, "key").answers(CKA_EC_POINT, form.clone());
            is_the_same(&fixture, BOTH.map(rule));
        }
    }
}

#[test]
fn the_public_object_is_read_where_the_private_one_tells_nothing() {
    let hides = |attribute| object(CKO_PRIVATE_KEY, "key").hides(attribute);
    let ec = Fixture::new(KeyKind::P256);
    is_the_same(&ec, [CKA_EC_POINT, CKA_EC_PARAMS].map(hides));
    let rsa = Fixture::new(KeyKind::Rsa2048);
    is_the_same(&rsa, [CKA_MODULUS, CKA_PUBLIC_EXPONENT].map(hides));
}

#[test]
fn a_certificate_of_the_same_id_is_read_where_there_is_no_public_object() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.hsm.delete(&fixture.token, Class::Public, &[1]);
    let hidden = || [object(CKO_PRIVATE_KEY, "key").hides(CKA_EC_POINT)];
    // Of another id.
    fixture.add_key(KeyKind::P256, "other", 2);
    is_none(&fixture, hidden(), "its public key is nowhere on the token");

    let certificate = fixture.certificate();
    fixture
        .hsm
        .import_certificate(&fixture.token, "of another label", &[1], &certificate);
    is_the_same(&fixture, hidden());
}

#[test]
fn an_attribute_that_fails_the_whole_call_hides_no_other() {
    let fixture = Fixture::new(KeyKind::Rsa2048);
    for attribute in [
        CKA_ALLOWED_MECHANISMS,
        CKA_ALWAYS_AUTHENTICATE,
        CKA_PUBLIC_KEY_INFO,
        CKA_EC_POINT,
        CKA_ID,
    ] {
        let with = |code| object(CKO_PRIVATE_KEY, "key").fails(attribute, code);

        is_the_same(&fixture, [with(CKR_ATTRIBUTE_TYPE_INVALID)]);
        is_the_same(&fixture, [with(CKR_FUNCTION_FAILED)]);
    }
    let with = |class| object(class, "key").fails(CKA_PUBLIC_KEY_INFO, CKR_GENERAL_ERROR);
    is_the_same(&fixture, BOTH.map(with));
}

#[test]
fn a_curve_that_tls_does_not_know_is_no_key_rather_than_a_guess() {
    let fixture = Fixture::new(KeyKind::P256);
    let why = "none of P-256, P-384 and P-521";
    let named = |class| object(class, "key").answers(CKA_EC_PARAMS, printable("secp256k1"));
    is_none(&fixture, BOTH.map(named), why);
    let broken = |class| object(class, "key").answers(CKA_EC_PARAMS, [0x30, 0x80]);
    is_none(&fixture, BOTH.map(broken), why);

    run(fixture
        .hsm
        .pkcs11_tool(&fixture.token)
        .args(["--keypairgen", "--key-type", "EC:secp256k1"])
        .args(["--label", "bitcoin", "--id", "03"]));
    let server = fixture.start();
    let client = server.client();
    fixture.faults.clear();
    let failure = refused(client.open("pkcs11:object=bitcoin"), ErrorCode::KeyNotFound);
    assert!(failure.message.contains(why), "{failure}");
    client.open(KEY).unwrap().sign().unwrap();
}

#[test]
fn a_point_that_is_on_no_curve_is_no_key() {
    let fixture = Fixture::new(KeyKind::P256);
    for wrong in [&[0x04, 3, 1, 2, 3][..], &[0x02; 65]] {
        let rule = |class| object(class, "key").answers(CKA_EC_POINT, wrong);
        is_none(&fixture, BOTH.map(rule), "cannot be used");
    }
}
