//! The two requests of one TLS handshake: which key they mean, and what they cost.

use p11_client::message::Class;
use p11_fault_module::{
    Function::{C_Sign, C_SignInit},
    Rule, token,
};
use p11_tests::{
    client::P256,
    fixture::{Fixture, KEY},
    keys::KeyKind,
    verify::verifies,
};

use super::{NONE, Tedge1Client, choose, message, sign, signature, some, text};

const HANDSHAKES: u64 = 100;

#[test]
fn the_question_for_the_scheme_costs_no_call_and_the_signature_two() {
    for (kind, offered, number) in [(KeyKind::P256, 0x0403, 0), (KeyKind::Rsa2048, 0x0401, 4)] {
        let fixture = Fixture::new(kind);
        let server = fixture.start();
        let old = Tedge1Client::of(&server);
        let with = message(5, &[&text("m"), &some(KEY), &[1, number], NONE]);
        old.ask(&choose(&[offered], KEY));
        signature(&old.ask(&with));

        let before = fixture.faults.counts();
        for _ in 0..HANDSHAKES {
            old.ask(&choose(&[offered], KEY));
        }
        let calls = fixture.faults.counts().since(&before);
        assert_eq!(calls.total(), 0, "{calls}");
        for request in [&with, &sign(b"m", KEY)] {
            let before = fixture.faults.counts();
            for _ in 0..HANDSHAKES {
                signature(&old.ask(request));
            }
            let calls = fixture.faults.counts().since(&before);
            assert_eq!(calls.of(C_SignInit), HANDSHAKES, "{calls}");
            assert_eq!(calls.of(C_Sign), HANDSHAKES, "{calls}");
            assert_eq!(calls.total(), 2 * HANDSHAKES, "{calls}");
        }
    }
}

/// The key of a new fixture, of whose label there will be another one that goes before it.
fn fixture() -> Fixture {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.hsm.delete(&fixture.token, Class::Private, &[1]);
    fixture.hsm.delete(&fixture.token, Class::Public, &[1]);
    let key = fixture.add_key(KeyKind::P256, "key", 9);
    Fixture { key, ..fixture }
}

#[test]
fn both_requests_mean_one_key_whatever_appears_or_goes_in_between() {
    let fixture = fixture();
    let server = fixture.start();
    let (old, client) = (Tedge1Client::of(&server), server.client());
    let signs_with_the_same = |when: &str| {
        let reply = old.ask(&sign(b"a message", KEY));
        let signature = signature(&reply);
        assert!(
            verifies(&fixture.key.spki, 0x0403, b"a message", signature),
            "{when}"
        );
    };
    let forget_handles = || {
        fixture
            .faults
            .set([Rule::RenumberObjects, token("device").logged_out()]);
    };
    old.ask(&choose(&[0x0403], KEY));

    // Of the same label, and it would be the first.
    fixture.add_key(KeyKind::P256, "key", 2);
    forget_handles();
    signs_with_the_same("another program made a key");

    let made = client
        .create_key("pkcs11:", P256, "key", Some(&[1]))
        .unwrap();
    forget_handles();
    signs_with_the_same("another client made a key");

    client.delete_key(&made.uri).unwrap();
    signs_with_the_same("another client deleted its key");
    forget_handles();
    signs_with_the_same("another client had deleted its key");
}

#[test]
fn when_the_key_is_gone_the_uri_means_the_next_one() {
    let fixture = fixture();
    let server = fixture.start();
    let old = Tedge1Client::of(&server);
    old.ask(&choose(&[0x0403], KEY));
    let other = server
        .client()
        .create_key("pkcs11:", P256, "key", Some(&[1]))
        .unwrap();
    server.client().delete_key("pkcs11:id=%09").unwrap();
    let reply = old.ask(&sign(b"a message", KEY));
    assert!(verifies(
        &other.spki,
        0x0403,
        b"a message",
        signature(&reply)
    ));
}
