//! `Status` tells what is configured and where, and no secret.

use std::{collections::BTreeMap, fs};

use p11_client::message::{Setting, Source};
use p11_tests::{
    client::TestClient,
    fixture::{Fixture, PIN},
    keys::KeyKind,
    server::Server,
};

/// The settings of a server, by their names.
fn settings(server: &Server) -> BTreeMap<String, Setting> {
    let settings = server.client().status().details.unwrap().settings;
    let count = settings.len();
    let by_name = settings
        .into_iter()
        .map(|setting| (setting.name.clone(), setting));
    let by_name: BTreeMap<_, _> = by_name.collect();
    assert_eq!(by_name.len(), count, "each once");
    by_name
}

fn places(setting: &Setting) -> (Source, Option<&str>, Option<u32>) {
    (setting.source, setting.place.as_deref(), setting.line)
}

#[test]
fn each_setting_is_told_with_its_place() {
    let fixture = Fixture::new(KeyKind::P256);
    let toml = format!(
        "[device.cryptoki]\nuri = \"pkcs11:token=device?pin-value=482915\"\n\npin = \"{PIN}\"\n"
    );
    let server = fixture.server().tedge_toml(&toml).start();
    server.secrets().add("482915");
    let file = server.folder().join("tedge.toml").display().to_string();
    let told = settings(&server);
    let (module, socket) = (&told["module-path"], &told["socket-path"]);
    assert_eq!(places(module), (Source::Flag, Some("--module-path"), None));
    assert_eq!(places(socket), (Source::Flag, Some("--socket-path"), None));
    let path = server.socket().display().to_string();
    assert_eq!(socket.value, Some(path));
    let uri = &told["uri"];
    assert_eq!(places(uri), (Source::File, Some(&*file), Some(2)));
    assert!(
        uri.value
            .as_ref()
            .unwrap()
            .starts_with("pkcs11:token=device")
    );
    assert!(!format!("{told:?}").contains("482915"));
    // The PIN of the URI goes before that of the file.
    let pin = &told["pin"];
    assert_eq!(
        (places(pin), &pin.value),
        ((Source::Uri, None, None), &None)
    );
    let dir = &told["config-dir"];
    assert_eq!(
        places(dir),
        (Source::Variable, Some("TEDGE_CONFIG_DIR"), None)
    );
    assert_eq!(told["sign-only"].value.as_deref(), Some("false"));
    assert_eq!(told["policy"].source, Source::Default);
    assert_eq!(told["max-connections"].value.as_deref(), Some("256"));

    // SIGHUP changes what it takes over, and what takes a restart stays.
    let other =
        format!("[device.cryptoki]\npin = \"{PIN}\"\nuri = \"pkcs11:\"\nmodule_path = \"/no\"\n");
    fs::write(&file, other).unwrap();
    server.sighup();
    let told = settings(&server);
    assert_eq!(places(&told["uri"]), (Source::File, Some(&*file), Some(3)));
    assert_eq!(places(&told["pin"]), (Source::File, Some(&*file), Some(2)));
    assert_eq!(told["module-path"].source, Source::Flag);
}

#[test]
fn a_socket_that_was_passed_is_the_service_managers() {
    let fixture = Fixture::new(KeyKind::P256);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("passed.sock");
    let server = fixture.server().pin(PIN).activate(&socket);
    let status = TestClient::at(&socket).status();
    let settings = status.details.unwrap().settings;
    let told = settings.iter().find(|it| it.name == "socket-path");
    assert_eq!(
        told.unwrap().source,
        Source::ServiceManager,
        "{}",
        server.log()
    );
}

#[test]
fn what_nobody_has_set_is_the_default() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture
        .server()
        .expect_socket("tedge-p11-server.sock")
        .start();
    let told = settings(&server);
    assert_eq!(told["socket-path"].source, Source::Default);
    assert_eq!(
        told["socket-path"].value.as_deref(),
        Some("./tedge-p11-server.sock")
    );
    assert_eq!(told["pin"].source, Source::Default);
    assert_eq!(told["pin"].value, None);
    assert!(!told.contains_key("uri"));
}
