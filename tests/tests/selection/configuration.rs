//! What the server's own URI may say besides the scope.

use p11_client::ErrorCode;
use p11_tests::{server::Server, wait::TIMEOUT};

use super::{PIN, Store, assert_opens, assert_refused};

#[test]
fn its_module_path_is_used_where_none_is_configured() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    let module = store.hsm.module();
    let uri = format!("pkcs11:token=device?module-path={}", module.display());
    let server = || Server::builder().envs(store.hsm.envs()).pin(PIN).uri(&uri);
    assert_opens(&server().start(), "pkcs11:object=key", &token, &key);
    // Only there.
    let mut server = server().module("/no/such/module.so".as_ref()).spawn();
    assert!(!server.wait(TIMEOUT).success());
    assert!(
        server.log().contains("/no/such/module.so"),
        "{}",
        server.log()
    );
}

#[test]
fn its_pin_source_goes_before_the_configured_pin() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("the pin");
    let path = file.display().to_string().replace(' ', "%20");
    for (source, content) in [
        (format!("file:{path}"), format!("{PIN}\n")),
        (path.clone(), PIN.to_owned()),
    ] {
        std::fs::write(&file, content).unwrap();
        let uri = format!("pkcs11:?pin-source={source}");
        let server = store.server().pin("0000000").uri(&uri).start();
        assert_opens(&server, "pkcs11:object=key", &token, &key);
    }
    // One newline at the end is not part of the PIN, another is.
    std::fs::write(&file, format!("{PIN}\n\n")).unwrap();
    let uri = format!("pkcs11:?pin-source={path}");
    let server = store.server().pin(PIN).uri(&uri).start();
    assert_refused(&server, "pkcs11:object=key", ErrorCode::PinIncorrect);
}

#[test]
fn its_pin_value_goes_before_the_configured_pin() {
    let store = Store::new();
    let token = store.token("device");
    let key = store.key(&token, "key", 1);
    let uri = format!("pkcs11:?pin-value={PIN}");
    let server = store.server().pin("0000000").uri(&uri).start();
    assert_opens(&server, "pkcs11:object=key", &token, &key);
}

#[test]
fn a_pin_source_that_cannot_be_read_is_named() {
    for (source, reason) in [
        ("/no/such/file", "/no/such/file"),
        ("%7Ccat%20/etc/pin", "pin-source"),
        ("https:%2F%2Fexample.org/pin", "pin-source"),
    ] {
        let store = Store::new();
        let uri = format!("pkcs11:?pin-source={source}");
        let mut server = store.server().uri(&uri).spawn();
        assert!(!server.wait(TIMEOUT).success());
        let error = server.wait_for_log("ERROR");
        assert!(error.contains(reason), "{error}");
    }
}
