//! Requests about keys.

use std::fs;

use p11_fault_module::Function::C_Login;
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    keys::{KeyKind, KeySpec},
    tools::{command, run},
    verify::verifies,
};

use super::{
    NONE, Tedge1Client, choose, list, message, sign, signature, some, text, text_of, varint,
};

/// The URI of the key of a fixture, without `type`.
fn uri_of(fixture: &Fixture, id_and_label: &str) -> String {
    format!(
        "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={};token=device;{id_and_label}",
        fixture.token.serial
    )
}

#[test]
fn the_scheme_of_the_key_is_chosen_among_those_offered() {
    for (kind, offered, reply) in [
        (
            KeyKind::P256,
            &[0x0804, 0x0403][..],
            &[1, 0x83, 0x08, 3][..],
        ),
        (KeyKind::P384, &[0x0503], &[1, 0x83, 0x0a, 3]),
        (KeyKind::P521, &[0x0603], &[1, 0x83, 0x0c, 3]),
        (KeyKind::Rsa2048, &[0x0401, 0x0804], &[1, 0x84, 0x10, 1]),
        (KeyKind::Rsa2048, &[0x0401], &[1, 0x81, 0x08, 1]),
        (KeyKind::Ed25519, &[0x0807], &[1, 0x87, 0x10, 7]),
        // Where nothing is offered the algorithm alone is asked for.
        (KeyKind::P256, &[], &[0, 3]),
        (KeyKind::Rsa2048, &[], &[0, 1]),
        (KeyKind::P256, &[0x0804, 0x4711], &[0, 3]),
        // The key could, but the client has no number to ask for it.
        (KeyKind::Rsa2048, &[0x0805, 0x0501], &[0, 1]),
    ] {
        let fixture = Fixture::new(kind);
        let server = fixture.start();
        let told = Tedge1Client::of(&server).ask(&choose(offered, KEY));
        assert_eq!(told, message(3, &[reply]), "{kind:?}, {offered:?}");
    }
}

#[test]
fn without_a_uri_the_servers_own_means_the_key() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).uri(KEY).start();
    // Nothing offered, no URI, no PIN: what an old client asks first.
    assert_eq!(
        Tedge1Client::of(&server).ask(&[0, 1, 0, 0, 0]),
        [0, 3, 0, 3]
    );
}

#[test]
fn without_a_scheme_the_key_signs_with_its_own() {
    for (kind, scheme) in [
        (KeyKind::P256, 0x0403),
        (KeyKind::P384, 0x0503),
        (KeyKind::P521, 0x0603),
        (KeyKind::Rsa2048, 0x0804),
        (KeyKind::Ed25519, 0x0807),
    ] {
        let fixture = Fixture::new(kind);
        let server = fixture.start();
        let old = Tedge1Client::of(&server);
        let without = message(5, &[&text("a message"), &some(KEY), NONE, NONE]);
        for request in [sign(b"a message", KEY), without] {
            let reply = old.ask(&request);
            let signature = signature(&reply);
            assert!(
                verifies(&fixture.key.spki, scheme, b"a message", signature),
                "{kind:?}"
            );
        }
    }
}

#[test]
fn every_scheme_that_has_a_number_is_signed() {
    for (kind, schemes) in [
        (KeyKind::P256, &[(0, 0x0403)][..]),
        (KeyKind::P384, &[(1, 0x0503)]),
        (KeyKind::P521, &[(2, 0x0603)]),
        (KeyKind::Rsa2048, &[(3, 0x0804), (4, 0x0401)]),
    ] {
        let fixture = Fixture::new(kind);
        let server = fixture.start();
        let old = Tedge1Client::of(&server);
        for (number, scheme) in schemes {
            let request = message(5, &[&text("a message"), &some(KEY), &[1, *number], NONE]);
            let reply = old.ask(&request);
            let signature = signature(&reply);
            assert!(verifies(
                &fixture.key.spki,
                *scheme,
                b"a message",
                signature
            ));
        }
        let other = message(
            5,
            &[
                &text("a message"),
                &some(KEY),
                &[1, (schemes[0].0 + 1) % 3],
                NONE,
            ],
        );
        let told = old.refused(&other);
        assert!(told.contains("cannot sign with TLS scheme"), "{told}");
    }
}

#[test]
fn public_keys_come_in_their_odd_pem_and_without_a_login() {
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048] {
        let fixture = Fixture::new(kind);
        let server = fixture.start();
        let reply = Tedge1Client::of(&server).ask(&message(6, &[&some(KEY)]));
        let (pem, rest) = text_of(reply.strip_prefix(&[0, 7]).unwrap());
        assert!(rest.is_empty(), "{rest:?}");
        assert!(inside(pem) == bare(&fixture.key.spki, kind), "{kind:?}");
        assert_eq!(fixture.faults.count(C_Login), 0);
    }
}

/// What is in a PEM labelled `PUBLIC KEY`.
fn inside(pem: &[u8]) -> Vec<u8> {
    let pem = std::str::from_utf8(pem).unwrap();
    let lines = pem.strip_prefix("-----BEGIN PUBLIC KEY-----\n").unwrap();
    let lines = lines.strip_suffix("-----END PUBLIC KEY-----\n").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), lines).unwrap();
    run(command("openssl")
        .args(["base64", "-d", "-in"])
        .arg(file.path()))
}

/// The EC point or RSAPublicKey in a SubjectPublicKeyInfo.
fn bare(spki: &[u8], kind: KeyKind) -> Vec<u8> {
    match kind {
        KeyKind::P256 => spki[spki.len() - 65..].to_vec(),
        KeyKind::P384 => spki[spki.len() - 97..].to_vec(),
        _ => {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), spki).unwrap();
            run(command("openssl")
                .args(["rsa", "-pubin", "-inform", "DER", "-in"])
                .arg(file.path())
                .args(["-RSAPublicKey_out", "-outform", "DER"]))
        }
    }
}

#[test]
fn keys_are_listed_without_certificates_and_named_without_type() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.store_certificate();
    let rsa = KeySpec::new(KeyKind::Rsa2048, "rsa", &[0xab, 0xcd]);
    fixture.hsm.generate(&fixture.token, &rsa);
    let server = fixture.start();
    let reply = Tedge1Client::of(&server).ask(&message(22, &[NONE, NONE]));
    let key = |class: &str, kind: &str, label: &str, id: &str, uri: &str| {
        let uri = uri_of(&fixture, uri);
        [class, kind, label, id, &uri].map(text).concat()
    };
    let expected = [
        key("private", "EC", "key", "01", "id=%01;object=key"),
        key("public", "EC", "key", "01", "id=%01;object=key"),
        key("private", "RSA", "rsa", "abcd", "id=%AB%CD;object=rsa"),
        key("public", "RSA", "rsa", "abcd", "id=%AB%CD;object=rsa"),
    ];
    assert_eq!(reply, message(23, &[&list(&expected)]));

    // A URI narrows them down, and a PIN shows what is private.
    let server = fixture.server().start();
    let old = Tedge1Client::of(&server);
    let narrow = some("pkcs11:token=device;object=key");
    assert_eq!(
        old.ask(&message(22, &[&narrow, NONE])),
        message(23, &[&list(&expected[1..2])])
    );
    assert_eq!(
        old.ask(&message(22, &[&narrow, &some(PIN)])),
        message(23, &[&list(&expected[..2])])
    );
}

#[test]
fn a_key_is_made_signs_and_is_deleted() {
    let (fixture, server) = Fixture::started();
    let old = Tedge1Client::of(&server);
    for (spec, kind, scheme) in [
        ([&[1][..], &varint(256)].concat(), KeyKind::P256, 0x0403),
        ([&[1][..], &varint(384)].concat(), KeyKind::P384, 0x0503),
        ([&[0][..], &varint(2048)].concat(), KeyKind::Rsa2048, 0x0804),
    ] {
        let create = message(
            10,
            &[
                &text("pkcs11:token=device"),
                &spec,
                &text("made"),
                &some([0xa1, 0xb2]),
                NONE,
            ],
        );
        let reply = old.ask(&create);
        let (pem, rest) = text_of(reply.strip_prefix(&[0, 11]).unwrap());
        let (uri, rest) = text_of(rest);
        assert!(rest.is_empty(), "{rest:?}");
        let uri = std::str::from_utf8(uri).unwrap();
        assert_eq!(uri, uri_of(&fixture, "id=%A1%B2;object=made"));

        let made = KeySpec::new(kind, "made", &[0xa1, 0xb2]);
        let spki = fixture.hsm.public_key(&fixture.token, &made);
        assert!(inside(pem) == bare(&spki, kind), "{kind:?}");
        assert_eq!(
            old.ask(&message(6, &[&some(uri)])),
            message(7, &[&text(pem)])
        );
        let reply = old.ask(&sign(b"a message", uri));
        assert!(verifies(&spki, scheme, b"a message", signature(&reply)));

        // An id in use is refused.
        let told = old.refused(&create);
        assert!(told.contains("choose another id"), "{told}");

        let delete = message(20, &[&text(uri), NONE]);
        // Both halves have this URI.
        assert_eq!(old.ask(&delete), message(21, &[&list(&[text(uri)])]));
        assert_eq!(old.ask(&delete), message(21, &[&[0]]));
    }
}

#[test]
fn all_pairs_that_match_are_deleted() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "key", 2);
    let server = fixture.start();
    let old = Tedge1Client::of(&server);
    let reply = old.ask(&message(20, &[&text(KEY), NONE]));
    let uris = ["id=%01;object=key", "id=%02;object=key"].map(|uri| text(uri_of(&fixture, uri)));
    let mut got = Vec::new();
    let (_, mut rest) = super::varint_of(reply.strip_prefix(&[0, 21]).unwrap());
    while !rest.is_empty() {
        let (uri, after) = text_of(rest);
        got.push(text(uri));
        rest = after;
    }
    got.sort();
    assert_eq!(got, uris);
    assert_eq!(
        old.ask(&message(22, &[NONE, NONE])),
        message(23, &[&list(&[])])
    );
}

#[test]
fn the_pin_of_a_uri_goes_before_that_of_a_request_and_opens_what_the_servers_does_not() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin("000001").start();
    let old = Tedge1Client::of(&server);
    let ask = |uri: &str, pin: &str| old.ask(&message(2, &[&text("m"), &some(uri), &some(pin)]));
    signature(&ask(KEY, PIN));
    signature(&ask(&format!("{KEY}?pin-value={PIN}"), "000002"));
    assert_eq!(fixture.faults.count(C_Login), 2, "the server's was first");
}
