//! `change-pin`

use p11_fault_module::{Pin, token};
use p11_tests::{
    fixture::{Fixture, PIN, SO_PIN},
    keys::KeyKind,
};

use super::{CommandLine, at_terminal, json, tedge_p11};

const NEW_PIN: &str = "brand-new-pin";

#[test]
fn the_pin_is_changed_by_the_old_one_and_the_server_goes_on() {
    let (fixture, server) = Fixture::started();
    server.secrets().add(NEW_PIN);
    let mut terminal = at_terminal(&server, &["change-pin"]);
    terminal.answer(
        "User PIN of \"device\" until now (empty: the server's own): ",
        PIN,
    );
    terminal.answer("New user PIN: ", NEW_PIN);
    terminal.answer("Again: ", NEW_PIN);
    assert!(terminal.wait().success(), "{}", terminal.screen());
    terminal.wait_for("The user PIN of token \"device\" is changed.");
    // Where the configuration still has the old one.
    terminal.wait_for("TEDGE_DEVICE_CRYPTOKI_PIN");
    assert!(fixture.takes_pin("device", NEW_PIN));
    tedge_p11(&server, &["sign", "--test", "key"]).done();
}

#[test]
fn a_wrong_old_pin_changes_nothing_and_is_exit_code_4() {
    let (fixture, server) = Fixture::started();
    server.secrets().add("not-the-pin");
    let change = |old: &str, arguments: &[&str]| {
        let all = [&["change-pin", "device", "--new-pin-env", "NEW"], arguments].concat();
        CommandLine::new(&server, &all)
            .env("NEW", NEW_PIN)
            .env("OLD", old)
            .run()
    };
    change("not-the-pin", &["--pin-env", "OLD"]).refused(4, &["PIN is incorrect"]);
    assert!(fixture.takes_pin("device", PIN));
    // Nobody is there to be asked.
    change("", &[]).refused(2, &["no terminal", "--pin-file FILE", "--server-pin"]);
    server.secrets().add(NEW_PIN);
    change("", &["--server-pin"]).done();
    assert!(fixture.takes_pin("device", NEW_PIN));
}

#[test]
fn the_security_officer_resets_a_pin() {
    let (fixture, server) = Fixture::started();
    server.secrets().add(NEW_PIN);
    let reset = |so_pin: &str| {
        let arguments = [
            "change-pin",
            "--reset",
            "--new-pin-env",
            "NEW",
            "--so-pin-env",
            "SO",
        ];
        CommandLine::new(&server, &arguments)
            .env("NEW", NEW_PIN)
            .env("SO", so_pin)
            .run()
    };
    server.secrets().add("not-the-so-pin");
    reset("not-the-so-pin").refused(4, &["PIN"]);
    assert!(fixture.takes_pin("device", PIN));
    fixture.takes_so_pin("device", SO_PIN, PIN);
    server.sighup();
    assert_eq!(reset(SO_PIN).done(), "pkcs11:token=device");
    assert!(fixture.takes_pin("device", NEW_PIN));
    let (code, answer) = json(&server, &["tokens"]);
    assert_eq!((code, answer["tokens"].as_array().unwrap().len()), (0, 2));
}

#[test]
fn no_pin_is_sent_that_could_lock_the_token() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .faults
        .set([token("device").pin_tries(Pin::User, 1)]);
    let server = fixture.start();
    let change = || {
        let arguments = ["change-pin", "--pin-env", "OLD", "--new-pin-env", "NEW"];
        CommandLine::new(&server, &arguments)
            .env("OLD", PIN)
            .env("NEW", NEW_PIN)
            .run()
    };
    change().refused(
        4,
        &[
            "has one try left; nothing was sent",
            "  tedge-p11 change-pin --reset pkcs11:token=device\n",
        ],
    );
    fixture
        .faults
        .set([token("device").pin_tries(Pin::User, 0)]);
    change().refused(
        4,
        &[
            "is locked; nothing was sent",
            "  tedge-p11 change-pin --reset pkcs11:token=device\n",
        ],
    );
}
