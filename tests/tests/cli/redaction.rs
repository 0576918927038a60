//! A PIN, wherever it is configured, is in no log.

use p11_tests::{server::Server, softhsm::SoftHsm, text::assert_contains};

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
    assert_contains(&line, ["pkcs11:token=a;object=b?pin-value="]);
    assert_contains(&line, ["module-name=c"]);
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
