//! Questions, colours and waiting, at a terminal.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use p11_fault_module::{Function::C_GenerateKeyPair, on};
use p11_tests::{
    fixture::{Fixture, PIN},
    keys::KeyKind,
    server::Server,
    softhsm::SoftHsm,
    terminal::Terminal,
};

use super::{at_terminal, count};

const NEW_PIN: &str = "brand-new-pin";
const NEW_SO_PIN: &str = "brand-new-officer";

/// It ended with this exit code, and shows nobody's PIN; what is typed is seen again.
fn ends(mut terminal: Terminal, code: i32) {
    let ended = terminal.wait();
    let screen = terminal.screen();
    assert_eq!(ended.code(), Some(code), "{screen}");
    for pin in [PIN, NEW_PIN, NEW_SO_PIN] {
        assert!(!screen.contains(pin), "{screen}");
    }
    assert!(terminal.echoes(), "the echo is still off");
}

#[test]
fn a_pin_that_the_server_does_not_have_is_asked_for_unseen() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture
        .server()
        .envs([("TEDGE_DEVICE_CRYPTOKI_PIN", "")])
        .start();
    let mut terminal = at_terminal(&server, &["sign", "--test", "key"]);
    terminal.answer("PIN of the token: ", PIN);
    terminal.wait_for("Signature made and verified");
    ends(terminal, 0);
}

#[test]
fn init_asks_for_both_pins_twice() {
    let (fixture, server) = Fixture::started();
    let init = || at_terminal(&server, &["init", "--label", "new"]);
    let mut terminal = init();
    terminal.answer("New user PIN (empty: the server's own): ", NEW_PIN);
    terminal.answer("Again: ", "mistyped");
    terminal.wait_for("the two differ; nothing was done");
    ends(terminal, 2);

    let mut terminal = init();
    terminal.answer("New user PIN (empty: the server's own): ", NEW_PIN);
    terminal.answer("Again: ", NEW_PIN);
    terminal.answer(
        "New security officer PIN (empty: the same as the user's): ",
        NEW_SO_PIN,
    );
    terminal.wait_for("officer PIN (empty: the same as the user's): \r\nAgain: ");
    terminal.answer("Again: ", NEW_SO_PIN);
    terminal.wait_for("Token \"new\" is ready.");
    ends(terminal, 0);
    server.secrets().add(NEW_PIN);
    server.secrets().add(NEW_SO_PIN);
    assert!(fixture.takes_pin("new", NEW_PIN));
    assert!(fixture.takes_so_pin("new", NEW_SO_PIN, NEW_PIN));
}

#[test]
fn an_empty_answer_is_the_servers_own_pin() {
    let hsm = SoftHsm::new();
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();
    let mut terminal = at_terminal(&server, &["init", "--label", "device"]);
    terminal.answer("New user PIN (empty: the server's own): ", "");
    terminal.answer(
        "New security officer PIN (empty: the same as the user's): ",
        "",
    );
    terminal.wait_for("pkcs11:token=device");
    ends(terminal, 0);
    super::tedge_p11(&server, &["create-key", "device-key"]).done();
}

#[test]
fn ctrl_c_at_a_question_leaves_the_terminal_and_the_token_as_they_were() {
    let (_fixture, server) = Fixture::started();
    let mut terminal = at_terminal(&server, &["init", "--label", "new"]);
    terminal.answer("New user PIN (empty: the server's own): ", NEW_PIN);
    terminal.wait_for("Again: ");
    assert!(!terminal.echoes());
    terminal.press("half\x03");
    let ended = terminal.wait();
    assert_eq!(
        ended.signal(),
        Some(Signal::SIGINT as i32),
        "{}",
        terminal.screen()
    );
    assert!(terminal.echoes(), "the echo is still off");
    assert!(!terminal.screen().contains("half"), "{}", terminal.screen());
    assert!(
        server
            .client()
            .list_tokens()
            .iter()
            .all(|token| token.label != "new")
    );
}

#[test]
fn a_key_is_deleted_after_its_name_was_typed() {
    let (fixture, server) = Fixture::started();
    fixture.store_certificate();
    let delete = |typed: &str| {
        let mut terminal = at_terminal(&server, &["delete-key", "key", "--yes"]);
        terminal.wait_for("P-256, certificate CN=a device until");
        terminal.wait_for("Type \"key\" to delete it:");
        terminal.press(typed);
        terminal
    };
    ends(delete("yes\r"), 1);
    assert_eq!(count(&server), 3);
    ends(delete("key\r"), 0);
    // The certificate stays.
    assert_eq!(count(&server), 1);
}

#[test]
fn a_slow_token_is_waited_for_with_the_time_that_has_passed() {
    let (fixture, server) = Fixture::started();
    fixture.faults.set([on(C_GenerateKeyPair).delays(2500)]);
    let terminal = at_terminal(&server, &["create-key", "slow"]);
    terminal.wait_for("the token makes the key, 1 s ...");
    terminal.wait_for("the token makes the key, 2 s ...");
    // The line is gone before the next one.
    terminal.wait_for("\r\x1b[KMade on token \"device\": slow");
    ends(terminal, 0);
}

#[test]
fn there_are_colours_at_a_terminal_and_no_signature_goes_there() {
    let (_fixture, server) = Fixture::started();
    let terminal = at_terminal(&server, &["status"]);
    terminal.wait_for("\x1b[1m\x1b[32mok:\x1b[0m tedge-p11-server");
    ends(terminal, 0);
    std::fs::write(server.folder().join("file"), "a file").unwrap();
    let terminal = at_terminal(&server, &["sign", "key", "file"]);
    terminal.wait_for("tedge-p11 sign key file --out FILE");
    ends(terminal, 2);
}
