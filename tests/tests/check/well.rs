//! Set-ups that are well, as far as they are seen.

use p11_tests::{keys::KeyKind, text::assert_in_order};

use super::device::Device;

#[test]
fn a_device_that_works_is_told_step_by_step() {
    let device = Device::new();
    let server = device.in_use();
    let told = device.check(&server, &[]);
    let folder = device.folder.path().display();
    assert_eq!(told.code, 0, "{}", told.text);
    assert_in_order(
        &told.text,
        [
            format!("configuration   {folder}/tedge.toml"),
            format!("; socket {}\n", server.socket().display()),
            "socket          root:root 0660; you may connect (as root)\n".to_owned(),
            "server          tedge-p11-server 0.1.0, protocol 1".to_owned(),
            "module          ".to_owned(),
            ", ready\n".to_owned(),
            "token           \"device\" (SoftHSM v2), PIN accepted ".to_owned(),
            "key             key, P-256, never extractable  pkcs11:token=device;object=key\n"
                .to_owned(),
            format!(
                "certificate     {folder}/device-certs/tedge-certificate.pem: CN=gw-0001, of this key, until "
            ),
            "signature       made and verified (ecdsa_secp256r1_sha256, ".to_owned(),
        ],
    );
}

#[test]
fn a_signature_of_every_kind_of_key_is_verified() {
    for kind in [
        KeyKind::P384,
        KeyKind::P521,
        KeyKind::Rsa2048,
        KeyKind::Ed25519,
    ] {
        let device = Device::with_key(kind);
        let server = device.in_use();
        let told = device.check(&server, &[]);
        assert_in_order(&told.text, ["signature       made and verified ("]);
        assert_eq!(told.code, 0, "{kind:?}: {}", told.text);
    }
}

#[test]
fn a_pin_that_was_never_tried_is_not_sent_without_login() {
    let device = Device::new();
    let server = device.server().start();
    let told = device.check(&server, &[]);
    assert_eq!(told.code, 0, "{}", told.text);
    for step in ["token", "key", "signature"] {
        assert_eq!(told.result(step), "not-seen", "{}", told.text);
    }
    assert_in_order(
        &told.text,
        [
            "was not tried yet",
            "do this:",
            "tedge-p11 check --socket-path ",
            " --login",
            "as far as it was seen",
        ],
    );

    let told = device.check_at(server.socket(), &["--login"]);
    assert_eq!(told.result("signature"), "ok", "{}", told.text);
    assert_eq!(told.code, 0);
}

#[test]
fn the_page_has_the_steps_in_their_order_and_the_fields_of_the_answer() {
    let page = include_str!("../../../docs/check.md");
    let device = Device::new();
    let server = device.in_use();
    let told = device.check(&server, &["--connect", "localhost:1"]);
    let steps = told.results().into_iter().map(|(step, _)| step);
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let (fields, listed): (Vec<_>, Vec<_>) = rows
        .map(|row| row.split('`').next().unwrap().to_owned())
        .partition(|name| ["ok", "exit"].contains(&name.as_str()) || name.starts_with("steps"));
    assert_eq!(listed, steps.collect::<Vec<_>>());

    let keys = |value: &serde_json::Value, prefix: &str| {
        let keys = value.as_object().unwrap().keys();
        keys.map(|key| format!("{prefix}{key}")).collect::<Vec<_>>()
    };
    let mut found = keys(&told.json, "");
    found.extend(keys(&told.json["steps"][0], "steps[]."));
    let mut fields: Vec<_> = fields
        .into_iter()
        .filter(|name| !name.ends_with("[]"))
        .collect();
    found.sort();
    fields.sort();
    assert_eq!(found, fields);
}
