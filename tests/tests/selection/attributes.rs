//! Each path attribute of RFC 7512 section 2.3 that is given must be equal.

use p11_client::ErrorCode;
use p11_tests::tools::run;

use super::{Store, assert_opens, assert_refused};

#[test]
fn each_attribute_that_is_given_must_be_equal() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    let server = store.server().start();
    let hex_slot = format!("{:x}", token.slot);
    let slot_description = format!("SoftHSM%20slot%20ID%200x{hex_slot}");
    let (serial, slot) = (token.serial.as_str(), token.slot.to_string());
    for (name, right, wrong) in [
        ("token", "device", "devic"),
        ("token", "device", "Device"),
        ("model", "SoftHSM%20v2", "SoftHSM%20v3"),
        ("manufacturer", "SoftHSM%20project", "SoftHSM"),
        ("serial", serial, "0123456789abcdef"),
        ("slot-id", &slot, "0"),
        ("slot-description", &slot_description, "SoftHSM%20slot%20ID"),
        ("slot-manufacturer", "SoftHSM%20project", "project"),
        ("library-manufacturer", "SoftHSM", "SoftHSM%20project"),
        (
            "library-description",
            "Implementation%20of%20PKCS11",
            "PKCS11",
        ),
        ("library-version", &library_version(&store), "9.9"),
    ] {
        assert_opens(
            &server,
            &format!("pkcs11:{name}={right};object=key"),
            &token,
            &key,
        );
        let wrong = format!("pkcs11:{name}={wrong};object=key");
        assert_refused(&server, &wrong, ErrorCode::TokenNotFound);
    }
    for (name, right, wrong) in [
        ("object", "key", "Key"),
        ("object", "key", ""),
        ("id", "%01", "%01%00"),
        ("id", "%01", ""),
    ] {
        assert_opens(&server, &format!("pkcs11:{name}={right}"), &token, &key);
        let wrong = format!("pkcs11:{name}={wrong}");
        assert_refused(&server, &wrong, ErrorCode::KeyNotFound);
    }
    // Each of them right, all together.
    let all = format!(
        "pkcs11:library-description=Implementation%20of%20PKCS11;library-manufacturer=SoftHSM;\
         slot-id={slot};slot-manufacturer=SoftHSM%20project;slot-description={slot_description};\
         model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial={serial};token=device;\
         id=%01;object=key;type=private"
    );
    assert_opens(&server, &all, &token, &key);
}

#[test]
fn an_unknown_attribute_matches_nothing() {
    let store = Store::new();
    let token = store.token("device");
    store.key(&token, "key", 1);
    let server = store.server().start();
    let uri = "pkcs11:token=device;object=key;x-colour=blue";
    let failure = assert_refused(&server, uri, ErrorCode::TokenNotFound);
    assert!(failure.message.contains("x-colour=blue"), "{failure}");
    assert_eq!(store.logins(), 0);
}

/// As pkcs11-tool prints it: "Library          Implementation of PKCS11 (ver 2.6)".
fn library_version(store: &Store) -> String {
    let said = run(store
        .hsm
        .command("pkcs11-tool")
        .arg("--module")
        .arg(store.hsm.module())
        .arg("--show-info"));
    let said = String::from_utf8_lossy(&said).into_owned();
    let version = said
        .split_once("(ver ")
        .and_then(|(_, rest)| rest.split_once(')'));
    version
        .unwrap_or_else(|| panic!("no version in {said}"))
        .0
        .to_owned()
}
