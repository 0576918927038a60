//! What a program that loads the module itself is told of refused PINs, and where they are remembered. Each test is a program
//! of its own.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};
use p11_client::{Client, ModuleConfig, Pin, message::OpenKey};
use p11_fault_module::Faults;
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    program,
};

struct Warnings(Mutex<Vec<String>>);

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

impl Log for Warnings {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() <= Level::Warn {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn hear_warnings() {
    log::set_logger(&WARNINGS).unwrap();
    log::set_max_level(LevelFilter::Info);
}

fn warnings() -> Vec<String> {
    std::mem::take(&mut WARNINGS.0.lock().unwrap())
}

fn module() -> ModuleConfig {
    ModuleConfig::new(Faults::module_path())
}

fn load(pin: &str) -> Client {
    Client::with_module(module().pin(Pin::from(pin))).unwrap()
}

/// Why the key cannot be opened.
fn refused(client: &Client) -> String {
    let error = client.open_key(OpenKey::new(KEY)).unwrap_err();
    assert!(error.is_pin(), "{error}");
    error.to_string()
}

fn run(test: &str) {
    program::run(&Fixture::new(KeyKind::P256), test);
}

#[test]
fn what_is_told_helps_in_a_program() {
    run("program_with_wrong_pins");
}

#[test]
#[ignore = "run by another test"]
fn program_with_wrong_pins() {
    hear_warnings();
    let without = Client::with_module(module()).unwrap();
    let required = refused(&without);
    assert!(required.contains("set ModuleConfig::pin"), "{required}");
    drop(without);
    let wrong = load("another-pin");
    let (first, again) = (refused(&wrong), refused(&wrong));
    for told in [&first, &again] {
        assert!(told.contains("(ModuleConfig::pin"), "{told}");
        assert!(told.contains("when all its clients are dropped"), "{told}");
    }
    drop(wrong);
    // That helps.
    let right = load(PIN);
    right.open_key(OpenKey::new(KEY)).unwrap();
    let with_own = refused(&right.clone().pin(Pin::from("another-pin")));
    let warned = warnings();
    for expected in ["ModuleConfig::refusals", "a request has brought a PIN"] {
        let is_said = warned.iter().any(|warning| warning.contains(expected));
        assert!(is_said, "{expected}: {warned:#?}");
    }
    for told in [required, first, again, with_own].iter().chain(&warned) {
        for of_the_daemon in [
            "server",
            "--pin",
            "SIGHUP",
            "systemctl",
            "Directory",
            "uid",
            "reloading",
        ] {
            assert!(!told.contains(of_the_daemon), "{of_the_daemon}: {told}");
        }
    }
}
