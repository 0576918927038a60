//! What the server says when it starts, and in which order.

use std::{fs, process::Command};

use p11_tests::{
    server::Server,
    softhsm::SoftHsm,
    text::{assert_contains, assert_in_order},
    tools::run,
};

use super::{NO_MODULE, fails_to_start, with_module};

#[test]
fn version_configuration_and_socket_are_logged_as_the_reference_page_says() {
    let hsm = SoftHsm::new();
    let module = hsm.module();
    let server = with_module(&hsm).pin("482915").start();
    server.wait_for_log("Server listening");
    let log = server.log();
    assert_in_order(
        &log,
        [
            &format!(
                "Z  INFO tedge_p11_server: Starting tedge-p11-server {}",
                env!("CARGO_PKG_VERSION")
            ),
            &format!(
                "Z  INFO tedge_p11_server: Using cryptoki configuration \
                 cryptoki_config=CryptokiConfigDirect {{ module_path: {module:?}, pin: \"[REDACTED]\", uri: None }}"
            ),
            &format!(
                "Z  INFO tedge_p11_server: Server listening listener=Some({:?})",
                server.socket()
            ),
        ],
    );
    // 2025-05-06T11:13:40.171073Z
    let first = log.lines().next().unwrap();
    let shape: String = first
        .chars()
        .take(28)
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z ");
}

#[test]
fn the_log_goes_to_stderr_and_nothing_to_stdout() {
    let (command, _folder) = Server::builder().module(NO_MODULE.as_ref()).into_command();
    let assert = assert_cmd::Command::from_std(command).assert().failure();
    assert!(assert.get_output().stdout.is_empty());
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr);
    assert!(stderr.contains("Starting tedge-p11-server"), "{stderr}");
    assert!(!stderr.contains('\x1b'), "colours in a file: {stderr:?}");
}

#[test]
fn a_module_that_does_not_exist_is_named_with_the_cause_after_the_listening_line() {
    let said = fails_to_start(Server::builder().module(NO_MODULE.as_ref()));
    assert_in_order(
        &said,
        [
            "Z  INFO tedge_p11_server: Starting tedge-p11-server ",
            "Z  INFO tedge_p11_server: Using cryptoki configuration ",
            "Z  INFO tedge_p11_server: Server listening ",
        ],
    );
    let last = said.lines().last().unwrap();
    assert!(last.contains(NO_MODULE), "{said}");
    assert!(last.contains("No such file"), "{said}");
}

#[test]
fn a_module_that_does_not_load_is_named_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    fs::write(&text, "this is no library").unwrap();
    let said = fails_to_start(Server::builder().module(&text));
    let last = said.lines().last().unwrap();
    assert!(last.contains(text.to_str().unwrap()), "{said}");
    assert!(
        last.contains("file too short") || last.contains("invalid ELF"),
        "{said}"
    );
}

#[test]
fn a_library_that_is_no_module_is_named_with_the_missing_symbol() {
    let library = fs::read_dir("/usr/lib/x86_64-linux-gnu")
        .or_else(|_| fs::read_dir("/usr/lib/aarch64-linux-gnu"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().is_some_and(|name| name == "libm.so.6"))
        .unwrap();
    let said = fails_to_start(Server::builder().module(&library));
    let last = said.lines().last().unwrap();
    assert!(last.contains("libm.so.6"), "{said}");
    assert!(last.contains("C_GetFunctionList"), "{said}");
}

#[test]
fn a_module_without_functions_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [source, module] = ["module.c", "module.so"].map(|name| folder.path().join(name));
    let text = "unsigned long C_GetFunctionList(void **list) { *list = 0; return 0; }";
    fs::write(&source, text).unwrap();
    let mut cc = Command::new("cc");
    run(cc.args(["-shared", "-o"]).args([&module, &source]));
    let said = fails_to_start(Server::builder().module(&module));
    let last = said.lines().last().unwrap();
    assert_contains(last, ["module.so", "no list of functions"]);
}

#[test]
fn a_uri_is_shown_as_given_before_it_is_found_not_to_parse() {
    let hsm = SoftHsm::new();
    let said = fails_to_start(with_module(&hsm).uri("zz.uri"));
    assert_in_order(
        &said,
        [
            "Z  INFO tedge_p11_server: Starting tedge-p11-server ",
            "Z  INFO tedge_p11_server: Using cryptoki configuration ",
        ],
    );
    assert!(said.contains("uri: Some(\"zz.uri\") }"), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains(" ERROR ") && last.contains("URI"), "{said}");
    assert!(last.contains("starts with `pkcs11:`"), "{said}");
}
