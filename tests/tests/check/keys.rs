//! Tokens and keys that are not there, or are there twice, or cannot sign.

use p11_fault_module::{
    Function::C_Sign,
    cryptoki_sys::{CKA_EXTRACTABLE, CKA_SIGN, CKO_PRIVATE_KEY, CKR_DEVICE_REMOVED},
    object, on,
};
use p11_tests::{
    fixture::{KEY, PIN, SO_PIN},
    keys::{KeyKind, KeySpec},
    server::Server,
    softhsm::SoftHsm,
    text::assert_in_order,
    tools::run,
};

use super::device::Device;

fn key_uri(device: &Device, uri: &str) {
    device.set_toml(&format!("[device]\nkey_uri = \"{uri}\"\n"), "");
}

#[test]
fn a_token_that_is_not_there_is_told_with_those_that_are() {
    let device = Device::new();
    let server = device.in_use();
    key_uri(&device, "pkcs11:token=devcie;object=key");
    device.check(&server, &[]).fails(
        "token",
        3,
        &[
            "there is no token \"devcie\"",
            "There is \"device\": pkcs11:token=device\n",
            "Blank: slot ",
            "tedge config set device.key_uri URI",
            "tedge-p11 init --label devcie",
        ],
    );
}

#[test]
fn a_blank_token_is_told_with_the_command_that_makes_it_one() {
    let device = Device::new();
    let hsm = SoftHsm::new();
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();
    device.check_at(server.socket(), &[]).fails(
        "token",
        3,
        &[
            "there is no token \"device\"",
            "Blank: slot 0",
            "tedge-p11 init --label device",
        ],
    );
    key_uri(&device, "pkcs11:object=key");
    device.check_at(server.socket(), &[]).fails(
        "token",
        3,
        &[
            "no token was initialised yet",
            "tedge-p11 init --label device",
        ],
    );
}

#[test]
fn two_tokens_of_one_name_are_told_apart_by_their_serial_numbers() {
    let device = Device::new();
    device.fixture.hsm.init_token("device", PIN, SO_PIN);
    let server = device.server().start();
    let serial = &device.fixture.token.serial;
    let command = format!("tedge config set device.key_uri 'pkcs11:serial={serial};token=device'");
    let told = device.check(&server, &[]);
    told.fails("token", 3, &["2 tokens could be the one that is meant"]);
    assert_in_order(&told.text, [command]);
}

#[test]
fn of_several_tokens_the_one_that_is_in_use_is_taken() {
    let device = Device::new();
    device.fixture.add_token("second");
    let server = device.in_use();
    key_uri(&device, "pkcs11:object=key");
    let told = device.check(&server, &[]);
    assert_eq!(told.code, 0, "{}", told.text);
    assert_in_order(&told.text, ["token           \"device\""]);
}

#[test]
fn of_several_tokens_that_were_not_used_yet_the_server_finds_the_key() {
    let device = Device::new();
    device.fixture.hsm.init_token("second", PIN, SO_PIN);
    let server = device.server().start();
    key_uri(&device, "pkcs11:object=key");
    let told = device.check(&server, &[]);
    assert_eq!(told.result("token"), "not-seen", "{}", told.text);
    assert_in_order(
        &told.text,
        [
            "2 tokens, none of which has accepted a PIN yet",
            "tedge config set device.key_uri pkcs11:token=device",
            "tedge-p11 check --socket-path ",
            " --login",
        ],
    );
    let told = device.check_at(server.socket(), &["--login"]);
    assert_in_order(&told.text, ["token           \"device\""]);
    assert_eq!(told.code, 0, "{}", told.text);
}

#[test]
fn a_key_that_is_not_there_is_told_with_those_that_are() {
    let device = Device::new();
    device.fixture.add_key(KeyKind::Rsa2048, "other key", 2);
    let server = device.in_use();
    key_uri(&device, "pkcs11:token=device;object=missing");
    device.check(&server, &[]).fails(
        "key",
        3,
        &[
            "there is no key \"missing\" on the token \"device\"",
            "There is \"key\", P-256",
            "There is \"other key\", RSA-2048",
            "tedge config set device.key_uri 'pkcs11:token=device;object=other%20key'",
            "tedge-p11 create-key missing",
        ],
    );
}

#[test]
fn a_token_without_keys_and_half_a_key_are_told() {
    let device = Device::new();
    let server = device.in_use();
    let delete = |class: &str| {
        let mut tool = device.fixture.hsm.pkcs11_tool(&device.fixture.token);
        run(tool.args(["--delete-object", "--type", class, "--label", "key"]));
    };
    delete("privkey");
    server.sighup();
    server.client().open(KEY).map(drop).unwrap_err();
    device.check(&server, &[]).fails(
        "key",
        3,
        &[
            "only the public half of \"key\" is there",
            "tedge-p11 create-key key",
        ],
    );
    delete("pubkey");
    server.sighup();
    server.client().open(KEY).map(drop).unwrap_err();
    device.check(&server, &[]).fails(
        "key",
        3,
        &[
            "there is no key \"key\"",
            "It holds no key at all.",
            "tedge-p11 create-key key",
        ],
    );
}

#[test]
fn of_two_keys_of_one_name_the_certificate_says_which_is_meant() {
    let device = Device::new();
    device.fixture.add_key(KeyKind::P256, "key", 2);
    let server = device.server().start();
    server
        .client()
        .open("pkcs11:token=device;object=key;id=%01")
        .unwrap()
        .sign()
        .unwrap();
    let told = device.check(&server, &[]);
    assert_eq!(told.code, 0, "{}", told.text);
    assert_in_order(
        &told.text,
        [
            "key, P-256",
            "pkcs11:token=device;id=%01;object=key",
            "of this key",
        ],
    );

    std::fs::remove_file(device.certificate()).unwrap();
    device.check(&server, &[]).fails(
        "key",
        3,
        &[
            "2 keys could be the one that is meant",
            "tedge config set device.key_uri 'pkcs11:token=device;id=%01;object=key'",
        ],
    );
}

#[test]
fn a_key_that_may_not_sign_fails_and_one_that_may_leave_the_token_is_warned_of() {
    let device = Device::new();
    let server = device.in_use();
    device
        .fixture
        .faults
        .set([object(CKO_PRIVATE_KEY, "key").answers(CKA_EXTRACTABLE, [1])]);
    device
        .check(&server, &[])
        .warns("key", &["it can be taken out of the token"]);
    device
        .fixture
        .faults
        .set([object(CKO_PRIVATE_KEY, "key").answers(CKA_SIGN, [0])]);
    device.check(&server, &[]).fails(
        "key",
        1,
        &["the key \"key\" may not sign (CKA_SIGN is false)"],
    );
}

#[test]
fn an_rsa_key_that_is_too_small_is_warned_of() {
    let device = Device::new();
    let mut tool = device.fixture.hsm.pkcs11_tool(&device.fixture.token);
    run(tool.args([
        "--keypairgen",
        "--key-type",
        "rsa:1024",
        "--label",
        "small",
        "--id",
        "07",
    ]));
    let spki = device.fixture.hsm.public_key(
        &device.fixture.token,
        &KeySpec::new(KeyKind::Rsa2048, "small", &[7]),
    );
    device.certify(&spki, &["-days", "90"], p11_tests::pki::CLIENT);
    let server = device.in_use();
    key_uri(&device, "pkcs11:token=device;object=small");
    let told = device.check(&server, &[]);
    told.warns("key", &["1024 bits: brokers refuse it"]);
    assert_in_order(&told.text, ["signature       made, not verified ("]);
}

#[test]
fn a_token_that_fails_to_sign_is_told_with_its_code() {
    let device = Device::new();
    let server = device.in_use();
    device
        .fixture
        .faults
        .set([on(C_Sign).returns(CKR_DEVICE_REMOVED)]);
    device
        .check(&server, &[])
        .fails("signature", 6, &["C_Sign returned CKR_DEVICE_REMOVED"]);
}
