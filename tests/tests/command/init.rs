//! `init`

use p11_tests::{
    fixture::{Fixture, PIN, SO_PIN},
    keys::KeyKind,
    server::Server,
    softhsm::SoftHsm,
};

use super::{CommandLine, json, tedge_p11};

const NEW_PIN: &str = "brand-new-pin";
const NEW_SO_PIN: &str = "brand-new-officer";

#[test]
fn a_blank_token_gets_the_pins_of_files_and_is_left_alone_from_then_on() {
    let (fixture, server) = Fixture::started();
    server.secrets().add(NEW_PIN);
    server.secrets().add(NEW_SO_PIN);
    let so_pin = server.folder().join("so-pin");
    std::fs::write(&so_pin, format!("{NEW_SO_PIN}\n")).unwrap();
    let init = || {
        let arguments = [
            "init",
            "--label",
            "new",
            "--pin-env",
            "NEW",
            "--so-pin-file",
            "so-pin",
        ];
        CommandLine::new(&server, &arguments)
            .env("NEW", NEW_PIN)
            .run()
    };
    let ended = init();
    assert_eq!(ended.done(), "pkcs11:token=new");
    ended.says(&[
        "Blank token found: slot ",
        "Token \"new\" is ready.",
        "systemctl reload tedge-p11-server",
        "Next: tedge-p11 create-key device-key",
    ]);
    assert!(!ended.stderr.contains(NEW_PIN), "{ended:?}");
    assert!(fixture.takes_pin("new", NEW_PIN));
    assert!(fixture.takes_so_pin("new", NEW_SO_PIN, NEW_PIN));

    let again = init();
    assert_eq!(again.done(), "pkcs11:token=new");
    assert_eq!(
        again.stderr,
        "There is a token \"new\" already; nothing was done.\n"
    );
    let (code, answer) = json(&server, &["init", "--label", "new"]);
    assert_eq!((code, &answer["created"]), (0, &false.into()));
}

#[test]
fn the_servers_own_pin_is_taken_where_that_is_asked_for() {
    let hsm = SoftHsm::new();
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();
    // Nobody is there to be asked, and nothing is guessed.
    tedge_p11(&server, &["init", "--label", "device"])
        .refused(2, &["no terminal", "--pin-file FILE", "--server-pin"]);
    let (code, answer) = json(&server, &["init", "--label", "device", "--server-pin"]);
    assert_eq!((code, &answer["uri"]), (0, &"pkcs11:token=device".into()));
    assert_eq!(answer["created"], true);
    tedge_p11(&server, &["create-key", "key"]).done();
}

#[test]
fn a_pin_on_stdin_is_read_once() {
    let (fixture, server) = Fixture::started();
    server.secrets().add(NEW_PIN);
    let init = CommandLine::new(&server, &["init", "--label", "new", "--pin-file", "-"]);
    assert_eq!(
        init.run_with_input(&format!("{NEW_PIN}\n")).done(),
        "pkcs11:token=new"
    );
    assert!(fixture.takes_pin("new", NEW_PIN));
}

#[test]
fn a_token_that_is_in_use_is_never_taken_for_a_blank_one() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).uri("pkcs11:serial=none").start();
    let ended = tedge_p11(
        &server,
        &[
            "init",
            "--label",
            "new",
            "--server-pin",
            &fixture.token.uri(),
        ],
    );
    ended.refused(3, &["there is no blank token", "tedge-p11 tokens"]);
    assert!(fixture.takes_so_pin("device", SO_PIN, PIN));
    tedge_p11(&server, &["init", "--label", "new", "a-name"]).refused(2, &["no name but its URI"]);
}
