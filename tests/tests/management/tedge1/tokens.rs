//! Requests about tokens.

use p11_tests::fixture::{Fixture, PIN, SO_PIN};

use super::{NONE, Tedge1Client, list, message, some, text, text_of, varint};

const NEW: &str = "305419";

fn uri_of(fixture: &Fixture) -> String {
    format!(
        "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={};token=device",
        fixture.token.serial
    )
}

#[test]
fn tokens_are_listed() {
    let (fixture, server) = Fixture::started();
    let old = Tedge1Client::of(&server);
    let uri = text(uri_of(&fixture));
    assert_eq!(
        old.ask(&[0, 12]),
        message(13, &[&list(std::slice::from_ref(&uri))])
    );

    let free = server.client().token("").slot;
    let model = [text("SoftHSM v2"), text("SoftHSM project")].concat();
    let free = [
        &varint(free)[..],
        &text(""),
        &model,
        &text(""),
        &[0],
        &text(format!("pkcs11:model=SoftHSM%20v2;slot-id={free}")),
    ];
    let device = [
        &varint(fixture.token.slot)[..],
        &text("device"),
        &model,
        &text(&fixture.token.serial),
        &[1],
        &uri,
    ];
    assert_eq!(
        old.ask(&[0, 16]),
        message(17, &[&list(&[free.concat(), device.concat()])])
    );
}

#[test]
fn a_token_is_made_once() {
    let (fixture, server) = Fixture::started();
    let old = Tedge1Client::of(&server);
    let init = message(14, &[&text("new"), &some(SO_PIN), &some(PIN), NONE]);
    let reply = old.ask(&init);
    let (uri, rest) = text_of(reply.strip_prefix(&[0, 15]).unwrap());
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(uri, server.client().token("new").uri.as_bytes());
    assert_eq!(old.ask(&init), reply, "the same token again");
    assert!(fixture.takes_pin("new", PIN));
}

#[test]
fn a_pin_is_changed_and_reset() {
    let (fixture, server) = Fixture::started();
    server.secrets().add(NEW);
    let old = Tedge1Client::of(&server);
    let changed = message(19, &[&text(uri_of(&fixture))]);
    let opens = |pin: &str| fixture.takes_pin("device", pin);

    let change = message(18, &[NONE, &text(NEW), &some(PIN), NONE, &[0]]);
    assert_eq!(old.ask(&change), changed);
    assert!(opens(NEW) && !opens(PIN));
    let uri = some("pkcs11:token=device");
    let reset = message(18, &[&uri, &text(PIN), NONE, &some(SO_PIN), &[1]]);
    assert_eq!(old.ask(&reset), changed);
    assert!(opens(PIN) && !opens(NEW));
}
