//! `status`, `tokens` and `keys`.

use p11_fault_module::{Function::C_Initialize, cryptoki_sys::CKR_GENERAL_ERROR, on};
use p11_tests::{
    fixture::{Fixture, PIN, SO_PIN},
    keys::KeyKind,
    server::Server,
    softhsm::SoftHsm,
    text::assert_contains,
};

use super::{CommandLine, json, tedge_p11};

#[test]
fn status_is_one_line_that_a_script_can_decide_on() {
    let (_fixture, server) = Fixture::started();
    let ended = tedge_p11(&server, &["status"]);
    assert_contains(
        ended.done(),
        [
            "ok: tedge-p11-server 0.1.0, up ",
            " s, 1 token, no signature yet",
        ],
    );
    assert_eq!(
        (ended.stdout.lines().count(), ended.stderr.as_str()),
        (1, "")
    );

    tedge_p11(&server, &["sign", "--test", "key"]).done();
    let ended = tedge_p11(&server, &["status"]);
    assert_contains(
        ended.done(),
        [" 1 token, 1 signature, the last ", " s ago ("],
    );
    let (code, answer) = json(&server, &["status"]);
    assert_eq!((code, &answer["ok"]), (0, &true.into()));
    assert_eq!(answer["counters"]["signatures"], 1);
    assert_eq!(
        (&answer["tokens"][0]["label"], &answer["tokens"][0]["pin"]),
        (&"device".into(), &"accepted".into())
    );
}

#[test]
fn metrics_are_those_of_prometheus_and_tell_of_a_server_that_is_away() {
    let (_fixture, server) = Fixture::started();
    tedge_p11(&server, &["sign", "--test", "key"]).done();
    let ended = tedge_p11(&server, &["status", "--metrics"]);
    let lines: Vec<_> = ended.done().lines().collect();
    for line in [
        "# TYPE p11_up gauge",
        "p11_up 1",
        "p11_available 1",
        "# TYPE p11_signatures_total counter",
        "p11_signatures_total 1",
        "p11_hung_calls 0",
    ] {
        assert!(lines.contains(&line), "{line:?} is not in {ended:?}");
    }
    let token = lines
        .iter()
        .find(|line| line.starts_with("p11_token_pin{token=\"device\",uri=\"pkcs11:"))
        .unwrap();
    assert!(token.ends_with(",state=\"accepted\"} 1"), "{token}");
    // Each sample stands below the type of its metric.
    for line in lines.iter().filter(|line| !line.starts_with('#')) {
        let name = line.split([' ', '{']).next().unwrap();
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with(&format!("# TYPE {name} "))),
            "{name}"
        );
    }

    let away = [
        "status",
        "--metrics",
        "--wait",
        "0",
        "--socket-path",
        "/none",
    ];
    let ended = tedge_p11(&server, &away);
    assert_eq!(ended.done().lines().last(), Some("p11_up 0"));
    ended.says(&["there is no socket"]);
}

#[test]
fn a_token_that_has_refused_the_pin_is_not_ok() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin("a-wrong-one").start();
    tedge_p11(&server, &["sign", "--test", "key"]).refused(4, &["The specified PIN is incorrect"]);
    let ended = tedge_p11(&server, &["status"]);
    assert_eq!(ended.code, 4, "{ended:?}");
    let line = "NOT OK: the token \"device\" has refused the PIN (from TEDGE_DEVICE_CRYPTOKI_PIN) since 20";
    assert!(ended.stdout.starts_with(line), "{ended:?}");
    let (code, answer) = json(&server, &["status"]);
    assert_eq!(
        (code, &answer["ok"], &answer["tokens"][0]["pin"]),
        (4, &false.into(), &"refused".into())
    );
    assert_eq!(answer["last_error"]["code"], "PinIncorrect");

    // A client's own wrong PIN is nobody else's trouble.
    let server = fixture
        .server()
        .envs([("TEDGE_DEVICE_CRYPTOKI_PIN", "")])
        .start();
    server.secrets().add("another-wrong-one");
    let sign = CommandLine::new(&server, &["sign", "--test", "key", "--pin-env", "OWN"]);
    sign.env("OWN", "another-wrong-one")
        .run()
        .refused(4, &["PIN is incorrect"]);
    let (code, answer) = json(&server, &["status"]);
    assert_eq!((code, &answer["tokens"][0]["pin"]), (0, &"refused".into()));
}

#[test]
fn a_module_that_cannot_start_is_told_with_exit_code_6() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture
        .faults
        .set([on(C_Initialize).returns(CKR_GENERAL_ERROR)]);
    let server = fixture.start();
    server.wait_for_log("CKR_GENERAL_ERROR");

    let ended = tedge_p11(&server, &["status"]);
    assert_eq!(ended.code, 6);
    assert!(
        ended.stdout.starts_with("NOT OK: tedge-p11-server"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("CKR_GENERAL_ERROR"), "{ended:?}");
    let (code, answer) = json(&server, &["status"]);
    assert_eq!((code, &answer["ok"]), (6, &false.into()));

    // What needs the module says where to look.
    tedge_p11(&server, &["keys"])
        .refused(6, &["CKR_GENERAL_ERROR", "journalctl -u tedge-p11-server"]);
    let (code, answer) = json(&server, &["keys"]);
    assert_eq!(
        (code, &answer["error"]["code"]),
        (6, &"ModuleUnavailable".into())
    );
}

#[test]
fn tokens_are_listed_with_the_shortest_uri_that_means_one() {
    let hsm = SoftHsm::new();
    hsm.init_token("device", PIN, SO_PIN);
    let twins = [
        hsm.init_token("twin", PIN, SO_PIN),
        hsm.init_token("twin", PIN, SO_PIN),
    ];
    let server = Server::builder().softhsm(&hsm).pin(PIN).start();

    let ended = tedge_p11(&server, &["tokens"]);
    let lines: Vec<_> = ended.done().lines().collect();
    assert_eq!(lines.len(), 4, "{ended:?}");
    assert!(lines[0].starts_with("(blank)  slot "), "{ended:?}");
    assert!(
        lines[0].contains("pkcs11:model=SoftHSM%20v2;slot-id="),
        "{ended:?}"
    );
    let line = lines
        .iter()
        .find(|line| line.starts_with("device"))
        .unwrap();
    assert!(line.ends_with("pkcs11:token=device"), "{ended:?}");
    for twin in &twins {
        let uri = format!("pkcs11:serial={};token=twin", twin.serial);
        assert!(lines.iter().any(|line| line.ends_with(&uri)), "{ended:?}");
    }

    let (code, answer) = json(&server, &["tokens"]);
    let labels: Vec<_> = answer["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| &token["label"])
        .collect();
    assert_eq!(
        (code, labels),
        (
            0,
            vec![&"".into(), &"device".into(), &"twin".into(), &"twin".into()]
        )
    );
    let full = tedge_p11(&server, &["tokens", "--verbose"]);
    assert!(
        full.done()
            .contains("manufacturer=SoftHSM%20project;serial="),
        "{full:?}"
    );
}

#[test]
fn keys_are_listed_with_what_they_may_do_and_their_certificates() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.store_certificate();
    fixture.add_key(KeyKind::Rsa2048, "dec", 2);
    let server = fixture.start();

    let ended = tedge_p11(&server, &["keys"]);
    let lines: Vec<_> = ended.done().lines().collect();
    let [dec, key] = lines.as_slice() else {
        panic!("{ended:?}")
    };
    assert!(
        dec.starts_with("dec  RSA-2048  signs  no certificate"),
        "{ended:?}"
    );
    assert!(
        key.starts_with("key  P-256     signs  CN=a device until 20"),
        "{ended:?}"
    );
    assert!(
        key.ends_with("  pkcs11:token=device;object=key"),
        "{ended:?}"
    );

    let (code, answer) = json(&server, &["keys", "key"]);
    assert_eq!((code, answer["keys"].as_array().unwrap().len()), (0, 1));
    let certificate = &answer["keys"][0]["certificate"];
    assert_eq!(certificate["issuer"], "CN=Test CA");
    // Two days and not a second, right after it was issued.
    assert!(
        (1..=2).contains(&certificate["days"].as_i64().unwrap()),
        "{certificate}"
    );
    tedge_p11(&server, &["keys", "device/dec"]).done();
    tedge_p11(&server, &["keys", "none"]).refused(3, &["There is no key \"none\"."]);
}

#[test]
fn a_refused_pin_is_told_instead_of_an_empty_list() {
    let fixture = Fixture::new(KeyKind::P256);
    let other = fixture.add_token("other");
    let server = fixture
        .server()
        .pin("a-wrong-one")
        .uri("pkcs11:token=device")
        .start();
    let ended = tedge_p11(&server, &["keys"]);
    ended.refused(
        4,
        &["The keys on token \"device\" are not shown: The specified PIN is incorrect"],
    );
    let (code, answer) = json(&server, &["keys"]);
    assert_eq!(
        (code, &answer["troubles"][0]["code"]),
        (4, &"PinIncorrect".into())
    );
    drop(other);
}

#[test]
fn without_a_pin_the_public_halves_are_shown_and_that_is_said() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture
        .server()
        .envs([("TEDGE_DEVICE_CRYPTOKI_PIN", "")])
        .start();
    let ended = tedge_p11(&server, &["keys"]);
    assert!(
        ended
            .done()
            .starts_with("key  P-256  public half  no certificate"),
        "{ended:?}"
    );
    ended.says(&["--pin-file FILE or --pin-env NAME"]);

    let ended = CommandLine::new(&server, &["keys", "--pin-env", "THE_PIN"])
        .env("THE_PIN", PIN)
        .run();
    assert!(ended.done().starts_with("key  P-256  signs"), "{ended:?}");
    assert_eq!(ended.stderr, "");
}
