//! ListTokens: every slot with a token, without a PIN.

use p11_client::message::PinState;
use p11_fault_module::{
    Function::{C_GetTokenInfo, C_Login},
    Pin,
    cryptoki_sys::CKR_DEVICE_ERROR,
    on, token,
};
use p11_tests::{
    fixture::{Fixture, PIN},
    keys::KeyKind,
};

#[test]
fn every_token_is_listed_initialised_or_not_and_no_login_happens() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().start();
    let client = server.client();

    let device = client.token("device");
    assert!(device.initialized && device.user_pin_set && device.login_required);
    assert!(!device.pin_pad && !device.write_protected);
    assert_eq!(
        (device.slot, &device.serial),
        (fixture.token.slot, &fixture.token.serial)
    );
    assert_eq!(device.model, "SoftHSM v2");
    assert_eq!(device.manufacturer, "SoftHSM project");
    assert_eq!(
        device.uri,
        format!(
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={};token=device",
            fixture.token.serial
        )
    );
    assert_eq!(
        (device.user_pin, device.so_pin),
        (PinState::Ok, PinState::Ok)
    );

    let free = client.token("");
    assert!(!free.initialized && !free.user_pin_set);
    // It has no label or serial number by which it could be named.
    let uri = format!("pkcs11:model=SoftHSM%20v2;slot-id={}", free.slot);
    assert_eq!(free.uri, uri);

    assert_eq!(fixture.faults.count(C_Login), 0);
}

#[test]
fn the_state_of_pins_is_listed() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.faults.set([
        token("device").pin_tries(Pin::User, 3),
        token("device").pin_tries(Pin::So, 2),
    ]);
    let server = fixture.server().start();
    let client = server.client();
    for (tries, user, so) in [
        (&[][..], PinState::Ok, PinState::Ok),
        (&[Pin::User], PinState::Low, PinState::Ok),
        (&[Pin::User], PinState::FinalTry, PinState::Ok),
        (&[Pin::So], PinState::FinalTry, PinState::FinalTry),
        (&[Pin::User, Pin::So], PinState::Locked, PinState::Locked),
    ] {
        for pin in tries {
            assert!(!fixture.tries_pin(*pin, "000001"));
        }
        let device = client.token("device");
        assert_eq!((device.user_pin, device.so_pin), (user, so));
    }
}

#[test]
fn a_pin_pad_is_listed_and_a_token_without_login_too() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    fixture.faults.set([
        token("device").pin_pad(PIN),
        token("second").asks_no_login(),
    ]);
    let server = fixture.server().start();
    let client = server.client();
    let (device, second) = (client.token("device"), client.token("second"));
    assert!(device.pin_pad && device.login_required);
    assert!(!second.pin_pad && !second.login_required);
}

#[test]
fn a_slot_that_fails_is_left_out_with_a_warning() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("sick");
    let server = fixture.server().start();
    let sick = on(C_GetTokenInfo).at("sick").returns(CKR_DEVICE_ERROR);
    fixture.faults.set([sick]);
    let tokens = server.client().list_tokens();
    let labels: Vec<_> = tokens.iter().map(|token| token.label.as_str()).collect();
    assert_eq!(labels, ["", "device"]);
    server.wait_for_log("C_GetTokenInfo returned CKR_DEVICE_ERROR");
}

#[test]
fn only_tokens_in_the_servers_scope_are_listed_and_free_slots() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let labels = |uri: &str| -> Vec<String> {
        let server = fixture.server().uri(uri).start();
        let tokens = server.client().list_tokens().into_iter();
        tokens.map(|token| token.label).collect()
    };
    assert_eq!(labels("pkcs11:token=device"), ["", "device"]);
    assert_eq!(labels("pkcs11:token=device;model=other"), [""; 0]);
}
