//! What the query of a request's URI may say, and what only the server's own may.

use p11_client::{Client, Config, Error, ErrorCode, Identity, message::Sign};

use super::{PIN, SO_PIN, Store, assert_opens, assert_refused};

#[test]
fn a_client_cannot_make_the_server_read_files_or_load_modules() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    // The server has a wrong PIN, and could read the right one.
    let server = store.server().pin("0000000").start();
    let file = server.folder().join("pin");
    std::fs::write(&file, PIN).unwrap();
    let client = Client::new(Config::new(server.socket()));
    for (name, value) in [
        ("pin-source", format!("file:{}", file.display())),
        ("pin-source", file.display().to_string()),
        ("module-path", store.hsm.module().display().to_string()),
        ("module-name", "softhsm2".to_owned()),
    ] {
        let uri = format!("pkcs11:object=key?{name}={value}");
        let failure = assert_refused(&server, &uri, ErrorCode::BadUri);
        assert!(failure.message.contains(name), "{failure}");
        let sign = Sign::new(
            uri.as_str(),
            0x0403,
            b"a message".to_vec(),
            Identity::of(&key.spki).unwrap(),
        );
        match client.sign(sign) {
            Err(Error::Server(failure)) => assert_eq!(failure.code, ErrorCode::BadUri, "{failure}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.logins(), 0);
}

#[test]
fn a_pin_in_a_requests_uri_works_and_is_never_logged() {
    const ODD_PIN: &str = "p:%/é?&4";
    const ENCODED: &str = "p:%25/%C3%A9%3F%264";
    let store = Store::new();
    let token = store.hsm.init_token("device", ODD_PIN, SO_PIN);
    let key = store.key(&token, "key", 1);
    let server = store
        .server()
        .uri("pkcs11:token=device")
        .args(["--log-level", "trace"])
        .start();
    for form in [ODD_PIN, ENCODED, "%C3%A9%3F%264", "%c3%a9%3f%264"] {
        server.secrets().add(form);
    }
    for (uri, code) in [
        (
            format!("pkcs11:token=device;object=none?pin-value={ENCODED}"),
            ErrorCode::KeyNotFound,
        ),
        (
            format!("pkcs11:object=key?pin-value={ENCODED}&pin-value=1"),
            ErrorCode::BadUri,
        ),
        (
            format!("pkcs11:object=key;object=key?pin-value={ENCODED}"),
            ErrorCode::BadUri,
        ),
    ] {
        let failure = assert_refused(&server, &uri, code);
        server.secrets().assert_absent(&failure.message);
    }
    // One that makes the server warn, and one that succeeds.
    let uri = format!("pkcs11:token=another;object=key?pin-value={ENCODED}");
    assert_opens(&server, &uri, &token, &key);
    server.wait_for_log("is held to the server's own URI");
    // Dropping the server looks for all forms of the PIN in its log.
}

#[test]
fn an_unknown_attribute_in_a_requests_query_is_ignored() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    let server = store.server().start();
    let uri = format!("pkcs11:object=key?x-colour=blue&pin-value={PIN}&x-size=3");
    assert_opens(&server, &uri, &token, &key);
}
