//! `--check-config`: what is wrong and where, without a start.

use std::{fs, os::unix::fs::PermissionsExt};

use p11_tests::{
    fixture::{Fixture, PIN},
    keys::KeyKind,
    server::{Builder, Server},
    text::assert_contains,
    wait::TIMEOUT,
};
use serde_json::{Value, json};

use super::NO_MODULE;

/// What the check printed, and how it ended.
struct Checked {
    code: i32,
    stdout: String,
    stderr: String,
}

fn check(builder: Builder, more: &[&str]) -> Checked {
    let (command, _folder) = builder.args(["--check-config"]).args(more).into_command();
    let assert = assert_cmd::Command::from_std(command)
        .timeout(TIMEOUT)
        .assert();
    let output = assert.get_output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Checked {
        code: output.status.code().unwrap(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

fn json(builder: Builder) -> (i32, Value) {
    let checked = check(builder, &["--json"]);
    assert_eq!(checked.stderr, "");
    let value = serde_json::from_str(&checked.stdout).unwrap();
    (checked.code, value)
}

/// A configuration without a fault, of a module that is not loaded.
fn good() -> Builder {
    Server::builder()
        .module(NO_MODULE.as_ref())
        .tedge_toml("[device.cryptoki]\npin = \"482915\"\nuri = \"pkcs11:token=device\"\n")
}

#[test]
fn a_configuration_that_can_be_used_is_shown_without_its_secrets() {
    let checked = check(good(), &[]);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert_contains(
        &checked.stdout,
        [
            "module-path",
            NO_MODULE,
            "pkcs11:token=device",
            "tedge.toml line 3",
        ],
    );
    let all = checked.stdout + &checked.stderr;
    assert!(!all.contains("482915"), "{all}");
    assert_contains(&all, ["The configuration can be used."]);

    let builder = good();
    let file = builder.folder().join("tedge.toml").display().to_string();
    let (code, report) = json(builder);
    assert_eq!(code, 0);
    assert_eq!(report["ok"], true);
    assert_eq!(
        (&report["errors"], &report["warnings"]),
        (&json!([]), &json!([]))
    );
    let settings = report["settings"].as_array().unwrap();
    let pin = json!({"name": "pin", "source": "file", "place": file, "line": 2});
    assert!(settings.contains(&pin), "{settings:?}");
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_what_to_write() {
    let builder = good().tedge_toml("[device.cryptoki]\nmodul_path = \"/m.so\"\npin = 482915\n");
    let file = builder.folder().join("tedge.toml").display().to_string();
    let policy = builder.folder().join("policy.toml");
    fs::write(&policy, "[[rule]]\nusers = [0]\noperations = [\"sing\"]\n").unwrap();
    let policy = policy.display().to_string();
    let (code, report) = json(builder.args(["--policy", &policy]));
    assert_eq!((code, &report["ok"]), (1, &json!(false)));
    // What is wrong in the one hides nothing of the other.
    let errors = report["errors"].as_array().unwrap();
    let [of_file, of_policy] = errors.as_slice() else {
        panic!("{errors:?}");
    };
    assert_eq!(
        (&of_file["file"], &of_file["line"], &of_file["column"]),
        (&json!(file), &json!(3), &json!(7))
    );
    assert_contains(
        of_file["message"].as_str().unwrap(),
        ["device.cryptoki.pin must be text: pin = \"...\""],
    );
    assert_eq!(
        (&of_policy["file"], &of_policy["line"]),
        (&json!(policy), &json!(3))
    );
    assert_contains(
        of_policy["message"].as_str().unwrap(),
        ["there is no operation \"sing\"", "sign, list"],
    );
    assert!(!report.to_string().contains("482915"), "{report}");
}

#[test]
fn warnings_leave_it_usable() {
    let builder = good().tedge_toml("[device.cryptoki]\nsocket_pth = \"/s\"\npin = \"482915\"\n");
    let file = builder.folder().join("tedge.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, report) = json(builder);
    assert_eq!((code, &report["ok"]), (0, &json!(true)));
    let warnings = report["warnings"].as_array().unwrap();
    let lines: Vec<_> = warnings.iter().map(|warning| &warning["line"]).collect();
    assert_eq!(lines, [&json!(2), &Value::Null], "{warnings:?}");
    for (warning, words) in warnings
        .iter()
        .zip(["did you mean socket_path?", "chmod o-r"])
    {
        assert_eq!(warning["file"], json!(file));
        assert_contains(warning["message"].as_str().unwrap(), [words]);
    }
}

#[test]
fn a_uri_of_the_file_is_told_with_its_line() {
    let toml = |uri: &str| format!("[device.cryptoki]\npin = \"482915\"\nuri = \"{uri}\"\n");
    let (code, report) = json(good().tedge_toml(&toml("pkcs11:label=x")));
    assert_eq!((code, &report["errors"]), (0, &json!([])));
    let [warning] = report["warnings"].as_array().unwrap().as_slice() else {
        panic!("{report}");
    };
    assert_eq!(warning["line"], 3);
    assert_contains(
        warning["message"].as_str().unwrap(),
        ["matches nothing", "`label=…`", "write `object=…`"],
    );
    let (code, report) = json(good().tedge_toml(&toml("pkcs11:object=%zz")));
    assert_eq!((code, &report["errors"][0]["line"]), (1, &json!(3)));
}

#[test]
fn a_uri_or_a_pin_that_cannot_be_used_is_an_error() {
    for (builder, words) in [
        (
            good().uri("pkcs11:object=%zz"),
            "the server's URI cannot be used",
        ),
        (
            good().uri("pkcs11:?pin-source=/no/such/pin"),
            "cannot read the PIN from /no/such/pin",
        ),
        (Server::builder(), "no PKCS#11 module is configured"),
        (
            good().args(["--policy", "/no/such/policy"]),
            "cannot read the policy /no/such/policy",
        ),
    ] {
        let checked = check(builder, &[]);
        assert_eq!(checked.code, 1, "{}", checked.stdout);
        assert_contains(&checked.stderr, ["error: ", words, "cannot be used."]);
    }
}

#[test]
fn nothing_is_loaded_and_a_server_that_runs_is_left_alone() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let client = server.client();
    client.token("device");
    let calls = fixture.faults.counts();
    let other = fixture.server().pin(PIN).expect_socket("none");
    let other = other.args(["--socket-path".as_ref(), server.socket().as_os_str()]);
    assert_eq!(check(other, &[]).code, 0);
    assert_eq!(fixture.faults.counts().since(&calls).total(), 0);
    assert!(client.status().available);
}

#[test]
fn json_is_for_the_check_alone() {
    let said = super::fails_to_start(good().args(["--json"]));
    assert_contains(said, ["--json is for --check-config"]);
}
