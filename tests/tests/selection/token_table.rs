//! Tokens of every name, a row each: the label that another program gives it, and what the server answers.

use p11_client::{ErrorCode, message::InitToken};
use p11_fault_module::token;
use p11_tests::{
    client::{P256, refused},
    text::assert_contains,
};

use super::{PIN, SO_PIN, Store, assert_refused};

/// The bytes of the label, what is listed as it, and what names it in its URI after the serial number.
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str)] = &[
    ("12345678901234567890123456789012", "12345678901234567890123456789012", ";token=12345678901234567890123456789012"),
    ("Gerät 鍵", "Gerät 鍵", ";token=Ger%C3%A4t%20%E9%8D%B5"),
    (" ", "", ""),
    (" padded  ", " padded", ";token=%20padded"),
    (";%/?&=#", ";%/?&=#", ";token=%3B%25%2F%3F%26%3D%23"),
    ("?pin-value=5", "?pin-value=5", ";token=%3Fpin-value%3D5"),
    ("two\nlines\x1b[2J", "two\u{fffd}lines\u{fffd}[2J", ";token=two%0Alines%1B%5B2J"),
    // Two of one label.
    ("twin", "twin", ";token=twin"),
    ("twin", "twin", ";token=twin"),
];

#[test]
fn each_token_is_listed_and_named_by_its_own_uri() {
    let store = Store::new();
    let tokens: Vec<_> = ROWS.iter().map(|(label, ..)| store.token(label)).collect();
    let server = store.server().start();
    let client = server.client();
    let listed = client.list_tokens();
    assert_eq!(listed.len(), ROWS.len() + 1, "and the free slot");
    for (token, (_, label, named)) in tokens.iter().zip(ROWS) {
        let uri = format!(
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={}{named}",
            token.serial
        );
        let entry = listed.iter().find(|entry| entry.uri == uri);
        let entry = entry.unwrap_or_else(|| panic!("{uri} is not among {listed:#?}"));
        assert_eq!((&entry.label[..], entry.slot), (*label, token.slot));

        let made = client.create_key(&uri, P256, "key", Some(&[1])).unwrap();
        assert_eq!(made.uri, format!("{uri};id=%01;object=key;type=private"));
        let key = client.open(&made.uri).unwrap();
        assert_eq!((&key.told().uri, &key.told().spki), (&made.uri, &made.spki));
        key.sign().unwrap();
        let public = client.get_public_key(&made.uri).unwrap();
        assert_eq!(public.spki, made.spki);
        assert_eq!(client.list_keys(&uri).unwrap().len(), 2);
        assert_eq!(client.delete_key(&made.uri).unwrap().len(), 2);
        assert_eq!(client.list_keys(&uri).unwrap().len(), 0);
        assert_refused(&server, &made.uri, ErrorCode::KeyNotFound);
    }
}

#[test]
fn a_new_token_gets_each_label_that_fits_and_no_other() {
    let store = Store::new();
    let server = store.server().start();
    let client = server.client();
    let long = "ü".repeat(16);
    let longer = format!("{long}x");
    let asked = |label: &str| {
        let request = InitToken::new(label).pin(Some(PIN.into()));
        client.init_token(request.so_pin(Some(SO_PIN.into())))
    };
    for (label, named) in [
        ("device", "token=device"),
        (&long, &*format!("token={}", "%C3%BC".repeat(16))),
        ("a;%/?&=", "token=a%3B%25%2F%3F%26%3D"),
    ] {
        let made = asked(label).unwrap();
        assert!(made.created && made.uri.ends_with(named), "{}", made.uri);
        let again = asked(label).unwrap();
        assert_eq!((again.created, again.uri), (false, made.uri));
    }
    for label in ["", &longer, "two\nlines", "\0", "  ", "padded "] {
        refused(asked(label), ErrorCode::BadRequest);
    }
    assert_eq!(client.list_tokens().len(), 4, "and the free slot");
}

#[test]
fn tokens_that_say_the_same_of_themselves_are_named_by_their_slots() {
    let store = Store::new();
    let tokens = ["one", "two"].map(|label| store.token(label));
    let keys: Vec<_> = (1..)
        .zip(&tokens)
        .map(|(id, token)| store.key(token, "key", id))
        .collect();
    let same = |label: &str| token(label).tells("twin", "1234");
    store.faults.set([same("one"), same("two")]);
    let server = store.server().start();
    let client = server.client();
    let mut listed = client.list_tokens();
    listed.retain(|token| token.initialized);
    assert_eq!(listed.len(), 2);
    for told in &listed {
        let place = tokens.iter().position(|token| token.slot == told.slot);
        let key = &keys[place.unwrap()];
        let slot = format!("serial=1234;token=twin;slot-id={}", told.slot);
        assert!(told.uri.ends_with(&slot), "{}", told.uri);
        let named = format!("{};id=%{:02X};object=key", told.uri, key.spec.id[0]);
        let opened = client.open(&format!("{};object=key", told.uri)).unwrap();
        assert_eq!(opened.told().uri, format!("{named};type=private"));
        assert_eq!(opened.told().spki.as_ref(), key.spki);
        opened.sign().unwrap();
        let listed = client.list_keys(&told.uri).unwrap();
        assert!(listed.len() == 2 && listed.iter().all(|half| half.uri.starts_with(&named)));
    }
    let several = refused(
        client.list_keys("pkcs11:token=twin"),
        ErrorCode::AmbiguousToken,
    );
    assert_contains(&several.message, listed.iter().map(|token| &token.uri));
    assert_contains(&several.message, ["slot-id=…"]);
}
