//! ListTokens: every slot with a token, without a PIN.

use p11_client::message::PinState;
use p11_fault_module::{
    Function::{C_GetTokenInfo, C_Login},
    Pin,
    cryptoki_sys::CKR_DEVICE_ERROR,
    on, token,
};
use p11_tests::{
    keys::KeyKind,
    stage::{PIN, Stage},
};

use crate::{admin::Admin, tries_a_wrong_pin};

#[test]
fn every_token_is_listed_initialised_or_not_and_no_login_happens() {
    let stage = Stage::new(KeyKind::P256);
    let server = stage.server().start();
    let admin = Admin::of(&server);

    let device = admin.token("device");
    assert!(device.initialized && device.user_pin_set && device.login_required);
    assert!(!device.pin_pad && !device.write_protected);
    assert_eq!(
        (device.slot, &device.serial),
        (stage.token.slot, &stage.token.serial)
    );
    assert_eq!(device.model, "SoftHSM v2");
    assert_eq!(device.manufacturer, "SoftHSM project");
    assert_eq!(
        device.uri,
        format!(
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={};token=device",
            stage.token.serial
        )
    );
    assert_eq!(
        (device.user_pin, device.so_pin),
        (PinState::Ok, PinState::Ok)
    );

    let free = admin.token("");
    assert!(!free.initialized && !free.user_pin_set);
    // It has no label or serial number by which it could be named.
    let uri = format!("pkcs11:slot-id={};model=SoftHSM%20v2", free.slot);
    assert_eq!(free.uri, uri);

    assert_eq!(stage.faults.count(C_Login), 0);
}

#[test]
fn it_is_told_how_pins_stand() {
    let stage = Stage::new(KeyKind::P256);
    stage.faults.set([
        token("device").pin_tries(Pin::User, 3),
        token("device").pin_tries(Pin::So, 2),
    ]);
    let server = stage.server().start();
    let admin = Admin::of(&server);
    for (tries, user, so) in [
        (&[][..], PinState::Ok, PinState::Ok),
        (&[Pin::User], PinState::Low, PinState::Ok),
        (&[Pin::User], PinState::FinalTry, PinState::Ok),
        (&[Pin::So], PinState::FinalTry, PinState::FinalTry),
        (&[Pin::User, Pin::So], PinState::Locked, PinState::Locked),
    ] {
        for pin in tries {
            tries_a_wrong_pin(&stage, *pin);
        }
        let device = admin.token("device");
        assert_eq!((device.user_pin, device.so_pin), (user, so));
    }
}

#[test]
fn a_pin_pad_is_told_and_so_is_a_token_that_wants_no_login() {
    let stage = Stage::new(KeyKind::P256);
    stage.add_token("second");
    stage
        .faults
        .set([token("device").pinpad(PIN), token("second").asks_no_login()]);
    let server = stage.server().start();
    let admin = Admin::of(&server);
    let (device, second) = (admin.token("device"), admin.token("second"));
    assert!(device.pin_pad && device.login_required);
    assert!(!second.pin_pad && !second.login_required);
}

#[test]
fn a_slot_that_fails_is_left_out_with_a_warning() {
    let stage = Stage::new(KeyKind::P256);
    stage.add_token("sick");
    let server = stage.server().start();
    let sick = on(C_GetTokenInfo).at("sick").returns(CKR_DEVICE_ERROR);
    stage.faults.set([sick]);
    let tokens = Admin::of(&server).tokens();
    let labels: Vec<_> = tokens.iter().map(|token| token.label.as_str()).collect();
    assert_eq!(labels, ["", "device"]);
    server.wait_for_log("C_GetTokenInfo returned CKR_DEVICE_ERROR");
}

#[test]
fn only_what_lies_in_the_servers_scope_is_listed_or_could_be_made_part_of_it() {
    let stage = Stage::new(KeyKind::P256);
    stage.add_token("second");
    let labels = |uri: &str| -> Vec<String> {
        let server = stage.server().uri(uri).start();
        let tokens = Admin::of(&server).tokens().into_iter();
        tokens.map(|token| token.label).collect()
    };
    assert_eq!(labels("pkcs11:token=device"), ["", "device"]);
    assert_eq!(labels("pkcs11:token=device;model=other"), [""; 0]);
}
