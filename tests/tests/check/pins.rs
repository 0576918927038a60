//! PINs that are refused, locked, missing or guarded: told, and never sent.

use p11_fault_module::{
    Pin, TokenFault,
    cryptoki_sys::{
        CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED,
        CKF_USER_PIN_LOCKED,
    },
    token,
};
use p11_tests::{fixture::KEY, server::Server, tpm::Tpm};

use super::device::Device;

const WRONG: &str = "sesame-street";

#[test]
fn a_pin_that_was_refused_is_told_with_whose_it_is_and_what_to_do() {
    let device = Device::new();
    let server = device.server().pin(WRONG).start();
    server.client().open(KEY).map(drop).unwrap_err();
    device.check(&server, &[]).fails(
        "token",
        4,
        &[
            "the token \"device\" refused",
            "it is not sent again",
            "do this:",
            "systemctl reload",
        ],
    );
    // Nor with --login: the server does not send what was refused.
    let told = device.check(&server, &["--login"]);
    told.fails("token", 4, &["refused"]);
}

#[test]
fn the_default_pin_that_was_refused_is_told_as_such() {
    let device = Device::new();
    let server = device
        .server()
        .without_env("TEDGE_DEVICE_CRYPTOKI_PIN")
        .start();
    server.client().open(KEY).map(drop).unwrap_err();
    device.check(&server, &[]).fails(
        "token",
        4,
        &["refused thin-edge's default PIN, since none is set"],
    );
}

#[test]
fn a_server_without_a_pin_says_so() {
    let device = Device::new();
    let server = device
        .server()
        .envs([("TEDGE_DEVICE_CRYPTOKI_PIN", "")])
        .start();
    device.check(&server, &[]).fails(
        "token",
        4,
        &[
            "the server has no PIN for the token \"device\"",
            "sudoedit ",
            "[device.cryptoki] pin = ",
        ],
    );
}

#[test]
fn flags_of_a_token_are_told_before_a_pin_is_sent() {
    let cases: [(u64, u64, &[&str]); 3] = [
        (
            CKF_USER_PIN_LOCKED,
            0,
            &[
                "the PIN of the token \"device\" is locked",
                "change-pin --reset device",
            ],
        ),
        (CKF_USER_PIN_FINAL_TRY, 0, &["\"device\""]),
        (
            0,
            CKF_USER_PIN_INITIALIZED,
            &[
                "the user's PIN of the token \"device\" was never set",
                "tedge-p11 init --label device",
            ],
        ),
    ];
    for (set, clear, words) in cases {
        let device = Device::new();
        device
            .fixture
            .faults
            .set([token("device").has(TokenFault::Flags { set, clear })]);
        let server = device.server().start();
        device.check(&server, &[]).fails("token", 4, words);
    }
}

#[test]
fn a_pin_that_is_locked_for_wrong_tries_is_told() {
    let device = Device::new();
    device
        .fixture
        .faults
        .set([token("device").pin_tries(Pin::User, 1)]);
    let server = device.server().pin(WRONG).start();
    server.client().open(KEY).map(drop).unwrap_err();
    let told = device.check(&server, &[]);
    told.fails("token", 4, &["device"]);
}

#[test]
fn a_used_up_try_is_a_warning_while_the_pin_is_accepted() {
    let device = Device::new();
    let server = device.in_use();
    device
        .fixture
        .faults
        .set([token("device").has(TokenFault::Flags {
            set: CKF_USER_PIN_COUNT_LOW,
            clear: 0,
        })]);
    device
        .check(&server, &[])
        .warns("token", &["at least one try of its PIN was used up"]);
}

#[test]
fn a_tpm_that_has_locked_itself_is_told_with_its_count() {
    let tpm = Tpm::new();
    tpm.init_token("device", "482915", "771122");
    tpm.generate("device", "482915", "ecc256", "key");
    tpm.lock_out();
    let tpm = tpm.straight();
    let server = Server::builder().module(&tpm.module()).envs(tpm.envs());
    let server = server.pin("wrong-482915").start();
    server.client().open(KEY).map(drop).unwrap_err();
    let device = Device::new();
    let told = device.check_at(server.socket(), &[]);
    told.fails(
        "token",
        4,
        &[
            "the TPM of the token \"device\" has locked itself",
            "1 of 1",
            "every 1000 s",
            "Nothing is lost",
            "tpm2_dictionarylockout --clear-lockout",
        ],
    );
}

#[test]
fn a_wrong_pin_of_a_tpm_is_told_with_how_many_it_takes() {
    let tpm = Tpm::new();
    tpm.init_token("device", "482915", "771122");
    tpm.generate("device", "482915", "ecc256", "key");
    let tpm = tpm.straight();
    let server = Server::builder().module(&tpm.module()).envs(tpm.envs());
    let server = server.pin("wrong-482915").start();
    server.client().open(KEY).map(drop).unwrap_err();
    let before = tpm.lockout_counter();
    let told = Device::new().check_at(server.socket(), &[]);
    told.fails(
        "token",
        4,
        &[
            "the token \"device\" refused the PIN from TEDGE_DEVICE_CRYPTOKI_PIN",
            &format!("The TPM has counted {before} of the "),
            "systemctl reload",
        ],
    );
    assert_eq!(tpm.lockout_counter(), before);
}
