//! Where a value is taken from: flag, environment, file, default, in this order.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use p11_client::{Client, Config, SigningKey};
use p11_tests::{
    keys::{KeyKind, KeySpec},
    server::{Builder, Server},
    softhsm::SoftHsm,
    text::assert_contains,
};
use rustls::{SignatureScheme, sign::SigningKey as _};

use super::{NO_MODULE, fails_to_start, with_module};

/// One value in its three places, `None` where it is not given at all.
#[derive(Clone, Copy)]
struct Given<'a> {
    flag: Option<&'a str>,
    env: Option<&'a str>,
    file: Option<&'a str>,
}

impl Given<'_> {
    /// Gives the value of `key` (as in tedge.toml) to a server.
    fn to(self, mut builder: Builder, key: &str) -> Builder {
        if let Some(value) = self.flag {
            builder = builder.args([&format!("--{}", key.replace('_', "-")), value]);
        }
        if let Some(value) = self.env {
            let name = format!("TEDGE_DEVICE_CRYPTOKI_{}", key.to_uppercase());
            builder = builder.envs([(name, value)]);
        }
        if let Some(value) = self.file {
            builder = builder.tedge_toml(&format!("[device.cryptoki]\n{key} = \"{value}\"\n"));
        }
        builder
    }
}

/// Every way in which a value can come from each place, with what must come of it.
fn precedence<'a>(
    flag: &'a str,
    env: &'a str,
    file: &'a str,
    default: &'a str,
) -> Vec<(Given<'a>, &'a str)> {
    let mut cases = Vec::new();
    for flag in [Some(flag), Some(""), None] {
        for env in [Some(env), Some(""), None] {
            for file in [Some(file), Some(""), None] {
                let first = [flag, env, file]
                    .into_iter()
                    .flatten()
                    .find(|value| !value.is_empty());
                cases.push((Given { flag, env, file }, first.unwrap_or(default)));
            }
        }
    }
    cases
}

#[test]
fn module_path_is_taken_from_flag_environment_file() {
    let none = "module_path";
    for (given, expected) in precedence("/no/flag.so", "/no/env.so", "/no/file.so", none) {
        let said = fails_to_start(given.to(Server::builder(), "module_path"));
        if expected == none {
            assert!(said.contains("--module-path"), "{said}");
        } else {
            let shown = format!("module_path: \"{expected}\", pin");
            assert!(said.contains(&shown), "{shown} is not in {said}");
        }
    }
}

#[test]
fn the_module_path_of_the_uri_is_used_where_none_is_configured() {
    let hsm = SoftHsm::new();
    let uri = format!("pkcs11:?module-path={}", hsm.module().display());
    let builder = || Server::builder().envs(hsm.envs()).uri(&uri);
    // The only slot of an empty token store.
    assert_eq!(builder().start().client().list_tokens().len(), 1);
    let said = fails_to_start(builder().module(NO_MODULE.as_ref()));
    assert!(said.contains(NO_MODULE), "{said}");
}

#[test]
fn uri_is_taken_from_flag_environment_file() {
    let none = "None";
    let cases = precedence("pkcs11:token=a", "pkcs11:token=b", "pkcs11:token=c", none);
    for (given, expected) in cases {
        let builder = Server::builder().module(NO_MODULE.as_ref());
        let said = fails_to_start(given.to(builder, "uri"));
        let shown = match expected {
            "None" => "uri: None }".to_owned(),
            uri => format!("uri: Some(\"{uri}\") }}"),
        };
        assert!(said.contains(&shown), "{shown} is not in {said}");
    }
}

#[test]
fn socket_path_is_taken_from_flag_environment_file_default() {
    let hsm = SoftHsm::new();
    for (given, expected) in precedence("f.sock", "e.sock", "t.sock", "tedge-p11-server.sock") {
        // Starting is proof: it waits for the expected socket.
        let server = given
            .to(with_module(&hsm).expect_socket(expected), "socket_path")
            .start();
        server.wait_for_log(expected);
    }
}

/// Opens the key and signs, which takes a login.
fn sign(server: &Server) -> Result<(), String> {
    let client = Client::new(Config::new(server.socket()));
    let key = SigningKey::open(&client, "pkcs11:object=key", None, None)
        .map_err(|error| format!("{error:?}"))?;
    let signer = key
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
        .ok_or("no scheme")?;
    signer
        .sign(b"a message")
        .map_err(|error| format!("{error:?}"))?;
    Ok(())
}

#[test]
fn the_default_socket_and_pin_are_used_with_a_warning_each() {
    let hsm = SoftHsm::new();
    let token = hsm.init_token("default", "123456", "771122");
    hsm.generate(&token, &KeySpec::new(KeyKind::P256, "key", &[1]));
    let server = with_module(&hsm)
        .expect_socket("./tedge-p11-server.sock")
        .start();
    let listening = server.wait_for_log("Server listening");
    assert!(
        listening.ends_with("listener=Some(\"./tedge-p11-server.sock\")"),
        "{listening}"
    );
    assert_eq!(sign(&server), Ok(()));
    let log = server.log();
    let of_configuration = |line: &&str| line.contains(" WARN tedge_p11_server: ");
    let warnings: Vec<_> = log.lines().filter(of_configuration).collect();
    assert_eq!(warnings.len(), 2, "{log}");
    assert!(
        warnings
            .iter()
            .any(|line| line.contains("tedge-p11-server.sock"))
    );
    assert!(
        warnings
            .iter()
            .any(|line| line.contains("PIN") && line.contains("default"))
    );
}

#[test]
fn configured_values_raise_no_warning() {
    let hsm = SoftHsm::new();
    let server = with_module(&hsm).pin("482915").start();
    server.wait_for_log("Server listening");
    assert!(!server.log().contains(" WARN "), "{}", server.log());
}

#[test]
fn no_module_path_anywhere_is_an_error_that_says_how_to_set_it() {
    let said = fails_to_start(Server::builder());
    assert_contains(
        &said,
        [
            "--module-path",
            "TEDGE_DEVICE_CRYPTOKI_MODULE_PATH",
            "module_path",
            "tedge.toml",
        ],
    );
}

#[test]
fn the_folder_of_tedge_toml_is_taken_from_flag_then_environment() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[device.cryptoki]\nmodule_path = \"/no/flagged.so\"\n";
    fs::write(folder.path().join("tedge.toml"), text).unwrap();
    let builder = || {
        Server::builder().tedge_toml("[device.cryptoki]\nmodule_path = \"/no/environment.so\"\n")
    };
    let said = fails_to_start(builder().args(["--config-dir".as_ref(), folder.path().as_os_str()]));
    assert!(said.contains("/no/flagged.so"), "{said}");
    let said = fails_to_start(builder());
    assert!(said.contains("/no/environment.so"), "{said}");
    let said = fails_to_start(builder().args(["--config-dir", ""]));
    assert!(said.contains("/no/environment.so"), "{said}");
}

#[test]
fn a_file_without_our_section_is_silent_and_other_keys_are_no_error() {
    let hsm = SoftHsm::new();
    let others = "[mqtt]\nport = 1883\n[device]\nkey_path = \"/x\"\n[c8y]\nurl = \"y\"\n";
    let ours = "[device.cryptoki]\nmode = \"socket\"\nenable = true\nuri = \"pkcs11:token=t\"\n";
    for toml in ["", others, &format!("{others}{ours}")] {
        let server = with_module(&hsm).pin("482915").tedge_toml(toml).start();
        server.wait_for_log("Server listening");
        assert!(!server.log().contains("tedge.toml"), "{}", server.log());
        assert!(!server.log().contains(" WARN "), "{}", server.log());
        assert_eq!(server.log().contains("pkcs11:token=t"), toml.contains(ours));
    }
}

/// The warning about this file with this text.
#[track_caller]
fn assert_warns(said: &str, file: &Path, expected: &str) {
    let expected = format!("{} {expected}", file.display());
    let line = said.lines().find(|line| line.ends_with(&expected));
    assert!(
        line.is_some_and(|line| line.contains(" WARN ")),
        "{expected} is not in {said}"
    );
}

#[test]
fn a_mistyped_key_is_a_warning_and_the_others_are_used() {
    for (key, meant) in [
        ("modul_path", "module_path"),
        ("module-path", "module_path"),
        ("sockt_path", "socket_path"),
        ("PIN", "pin"),
        ("url", "uri"),
    ] {
        let toml = format!(
            "[device.cryptoki]\nenable = true\n{key} = \"482915\"\nmodule_path = \"{NO_MODULE}\"\n"
        );
        let builder = Server::builder().tedge_toml(&toml);
        let path = builder.folder().join("tedge.toml");
        let said = fails_to_start(builder);
        let expected =
            format!("line 3, column 1: [device.cryptoki] has no \"{key}\"; did you mean {meant}?");
        assert_warns(&said, &path, &expected);
        assert_contains(&said, [&format!("module_path: \"{NO_MODULE}\"")]);
        assert!(!said.contains("482915"), "{said}");
    }
}

#[test]
fn a_pin_that_is_not_utf_8_is_refused_and_not_shown() {
    let pin = OsStr::from_bytes(b"48\xff2915");
    let builder = || Server::builder().module(NO_MODULE.as_ref());
    for (origin, builder) in [
        ("--pin", builder().args([OsStr::new("--pin"), pin])),
        (
            "TEDGE_DEVICE_CRYPTOKI_PIN",
            builder().envs([("TEDGE_DEVICE_CRYPTOKI_PIN", pin)]),
        ),
    ] {
        let said = fails_to_start(builder);
        assert_contains(
            &said,
            [&format!(
                "the PIN of {origin} cannot be used: it is not UTF-8"
            )],
        );
        assert!(!said.contains("2915"), "{said}");
    }
}

#[test]
fn values_are_found_however_toml_lets_them_be_written() {
    for toml in [
        "[device.cryptoki]\nuri = \"pkcs11:token=t\"\n",
        "[device]\ncryptoki.uri = 'pkcs11:token=t'\n",
        "device = { cryptoki = { uri = \"pkcs11:token\\u003Dt\" } }\n",
        "\"device\".cryptoki.uri = \"\"\"\\\n  pkcs11:token=t\"\"\"\n",
    ] {
        let builder = Server::builder().module(NO_MODULE.as_ref());
        let said = fails_to_start(builder.tedge_toml(toml));
        assert!(said.contains("uri: Some(\"pkcs11:token=t\")"), "{said}");
    }
}
