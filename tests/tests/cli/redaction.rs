//! A PIN, wherever it is configured, is in no log.

use p11_tests::{
    fixture::Fixture, requests::requests_about, server::Server, softhsm::SoftHsm,
    text::assert_contains,
};

use super::{NO_MODULE, fails_to_start, with_module};

const PIN: &str = "482915";

#[test]
fn a_configured_pin_is_not_logged() {
    let hsm = SoftHsm::new();
    let toml = format!("[device.cryptoki]\npin = \"{PIN}\"\n");
    for builder in [
        with_module(&hsm).args(["--pin", PIN]),
        with_module(&hsm).envs([("TEDGE_DEVICE_CRYPTOKI_PIN", PIN)]),
        with_module(&hsm).tedge_toml(&toml),
    ] {
        let server = builder.args(["--log-level", "trace"]).start();
        server.secrets().add(PIN);
        server.wait_for_log("pin: \"[REDACTED]\"");
        server.wait_for_log("Server listening");
        // Dropping it looks for the PIN.
    }
}

#[test]
fn a_pin_in_the_uri_is_not_logged() {
    let uri = format!("pkcs11:token=a;object=b?pin-value={PIN}&module-name=c");
    let hsm = SoftHsm::new();
    let server = with_module(&hsm).uri(&uri).start();
    server.secrets().add(PIN);
    let line = server.wait_for_log("Using cryptoki configuration");
    assert_contains(&line, ["\"pkcs11:token=a;object=b?<REDACTED>\""]);
}

#[test]
fn a_pin_in_the_wrong_place_of_the_command_line_is_not_printed() {
    for arguments in [
        &["--pin=", PIN][..],
        &["--pin", "", PIN],
        &[PIN],
        &["--pin= ", PIN],
        &["--pni", PIN],
        &["--pni=482915"],
        &["-p482915"],
        &["--log-level", PIN],
        &["--max-connections", PIN, "--max-connections=482915x"],
        &["--sign-only=482915"],
        &["--uri", "pkcs11:", "482915"],
    ] {
        let said = fails_to_start(Server::builder().args(arguments));
        assert!(said.starts_with("error: "), "{said}");
        assert!(!said.contains(PIN), "{said}");
    }
}

#[test]
fn no_spelling_of_a_pin_in_a_uri_is_logged_or_answered() {
    let (fixture, server) = Fixture::started();
    server.secrets().add(PIN);
    for uri in [
        "pkcs11:token=a%3Fpin-value=482915",
        "pkcs11:token=a%253Fpin-value%253D482915",
        "pkcs11:token=a&PIN-VALUE=482915",
        "pkcs11:token=a?pinvalue=482915",
        "pkcs11:object=key;x-pin=482915",
        "pkcs11%3Atoken%3Da%3Fpin-value%3D482915",
    ] {
        for request in requests_about(uri, None, &fixture.certificate()) {
            let answer = format!("{:?}", server.client().ask(&request));
            assert!(!answer.contains(PIN), "{answer}");
        }
        let module = fixture.hsm.module();
        let server = Server::builder().module(&module).uri(uri).spawn();
        server.secrets().add(PIN);
        server.wait_for_log("Using cryptoki configuration");
    }
}

#[test]
fn a_pin_in_a_uri_that_does_not_parse_is_not_logged() {
    for uri in [
        format!("zz.uri?pin-value={PIN}"),
        format!("pkcs11:token=a;token=b?pin-value={PIN}"),
        format!("pkcs11:token=a?x=y&Pin-Value={PIN}%zz"),
    ] {
        let builder = Server::builder().module(NO_MODULE.as_ref()).uri(&uri);
        let said = fails_to_start(builder.args(["--log-level", "trace"]));
        assert!(!said.contains(PIN), "{said}");
        let shown = uri.split('?').next().unwrap();
        assert!(said.contains(&format!("uri: Some(\"{shown}?")), "{said}");
    }
}

#[test]
fn control_characters_cannot_fake_a_line() {
    let uri = "pkcs11:token=a\n2025-05-06T11:13:40.171073Z  INFO tedge_p11_server: fake\x1b[2J";
    let said = fails_to_start(Server::builder().module(NO_MODULE.as_ref()).uri(uri));
    assert!(!said.contains('\x1b'), "{said:?}");
    assert!(said.lines().all(|line| !line.ends_with("fake") && !line.starts_with("2025-05-06T11:13:40.171073Z")), "{said:?}");
}
