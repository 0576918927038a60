//! `delete-key`

use p11_tests::fixture::Fixture;

use super::{count, json, tedge_p11};

#[test]
fn a_key_without_a_valid_certificate_goes_where_yes_is_said() {
    let (fixture, server) = Fixture::started();
    tedge_p11(&server, &["delete-key", "key"]).refused(
        2,
        &[
            "P-256, no valid certificate",
            "  tedge-p11 delete-key key --yes\n",
        ],
    );
    assert_eq!(count(&server), 2);

    let ended = tedge_p11(&server, &["delete-key", "key", "--yes"]);
    assert_eq!(ended.done(), "pkcs11:token=device;object=key");
    assert_eq!(count(&server), 0);
    let ended = tedge_p11(&server, &["delete-key", "key", "--yes"]);
    assert_eq!(ended.done(), "");
    ended.says(&["There is no key \"key\"; nothing was deleted."]);

    fixture.add_key(p11_tests::keys::KeyKind::P256, "key", 1);
    let (code, answer) = json(&server, &["delete-key", "key", "--yes"]);
    assert_eq!((code, answer["deleted"].as_array().unwrap().len()), (0, 2));
    let (code, answer) = json(&server, &["delete-key", "key", "--yes"]);
    assert_eq!((code, answer["deleted"].as_array().unwrap().len()), (0, 0));
}

#[test]
fn yes_does_not_answer_for_a_key_whose_certificate_is_valid() {
    let (fixture, server) = Fixture::started();
    fixture.store_certificate();
    tedge_p11(&server, &["delete-key", "key", "--yes"]).refused(
        2,
        &[
            "certificate CN=a device until",
            "tedge-p11 certificate delete key && tedge-p11 delete-key key --yes\n",
        ],
    );
    assert_eq!(count(&server), 3);
}
