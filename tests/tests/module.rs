//! `p11-client` with the module in the process: the same client, without a server. Each test is a program of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{
    io::{Read, Write, pipe},
    os::unix::fs::symlink,
    path::Path,
    process,
    sync::{Arc, Barrier},
    thread,
};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, fork, getpid},
};
use p11_client::{
    Client, Error, ModuleConfig, ModuleTransport, Pin, Scheme, SigningKey, message::OpenKey,
};
use p11_fault_module::{Faults, Function::*, cryptoki_sys::*, on};
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    program,
    verify::verifies,
};

fn config() -> ModuleConfig {
    ModuleConfig::new(Faults::module_path()).pin(Pin::from(PIN))
}

fn open(client: &Client) -> SigningKey {
    SigningKey::open(client, KEY, None, None).unwrap()
}

fn sign(key: &SigningKey) -> Result<(), Error> {
    let signature = key.sign(Scheme::EcdsaP256Sha256, b"message")?;
    let spki = key.public_key_info().spki();
    let scheme = Scheme::EcdsaP256Sha256.number();
    assert!(verifies(spki, scheme, b"message", &signature));
    Ok(())
}

fn run(test: &str) {
    program::run(&Fixture::new(KeyKind::P256), test);
}

#[test]
fn clients_of_one_module_share_an_engine_which_goes_with_the_last() {
    run("program_with_two_clients");
}

#[test]
#[ignore = "run by another test"]
fn program_with_two_clients() {
    let faults = program::faults();
    let first = Client::with_module(config()).unwrap();
    let second = Client::with_module(config()).unwrap();
    let key = open(&first);
    sign(&key).unwrap();
    sign(&open(&second)).unwrap();
    assert_eq!(faults.count(C_Initialize), 1);
    assert_eq!(faults.count(C_Login), 1);

    // Two calls for a signature, as in the server.
    let before = faults.counts();
    sign(&key).unwrap();
    let calls = faults.counts().since(&before);
    assert_eq!(calls.total(), 2, "{calls}");

    drop((first, key));
    assert_eq!(faults.count(C_Finalize), 0);
    sign(&open(&second)).unwrap();
    drop(second);
    assert_eq!(faults.count(C_Finalize), 1);

    // And it comes back.
    sign(&open(&Client::with_module(config()).unwrap())).unwrap();
    assert_eq!(faults.count(C_Initialize), 2);
    assert_eq!(faults.count(C_Finalize), 2);
}

#[test]
fn another_configuration_of_a_module_in_use_is_refused() {
    run("program_with_two_configurations");
}

#[test]
#[ignore = "run by another test"]
fn program_with_two_configurations() {
    let client = Client::with_module(config()).unwrap();
    let refused = |config| Client::with_module(config).unwrap_err();
    for other in [
        config().pin(Pin::from("another-pin")),
        config().uri("pkcs11:token=device"),
    ] {
        let error = refused(other);
        assert_eq!(error.code(), "ModuleInUse");
        assert!(!format!("{error} {error:?}").contains("another-pin"));
    }
    drop(client);
    // A PIN that the token has refused is not sent again by a program that comes and goes.
    let faults = program::faults();
    for _ in 0..4 {
        let wrong = Client::with_module(config().pin(Pin::from("another-pin"))).unwrap();
        let error = wrong.open_key(OpenKey::new(KEY)).unwrap_err();
        assert!(error.is_pin(), "{error}");
    }
    assert_eq!(faults.count(C_Login), 1);
    let uri = |query: &str| {
        config()
            .pin(None)
            .uri(format!("pkcs11:token=device?{query}"))
    };
    let by_uri = Client::with_module(uri(&format!("pin-value={PIN}"))).unwrap();
    sign(&open(&by_uri)).unwrap();
    drop(by_uri);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{PIN}\n")).unwrap();
    let source = format!("pin-source={}", file.path().display());
    sign(&open(&Client::with_module(uri(&source)).unwrap())).unwrap();

    assert_eq!(refused(uri("pin-source=/nowhere")).code(), "PinRequired");
    assert_eq!(refused(config().uri("http:")).code(), "BadUri");
    let error = refused(ModuleConfig::new("/nowhere/module.so"));
    assert_eq!(error.code(), "ModuleUnavailable");
}

#[test]
fn one_module_is_one_engine_however_it_is_configured() {
    let path = Faults::module_path();
    // By its name alone dlopen(3) finds it there.
    let folder = [("LD_LIBRARY_PATH", path.parent().unwrap())];
    for test in [
        "program_with_other_paths",
        "program_that_begins_with_a_name",
    ] {
        program::run_with(&Fixture::new(KeyKind::P256), test, &folder);
    }
}

#[test]
#[ignore = "run by another test"]
fn program_with_other_paths() {
    let path = Faults::module_path();
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap());
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("link.so");
    symlink(&path, &link).unwrap();
    let first = Client::with_module(config()).unwrap();
    sign(&open(&first)).unwrap();
    let query = format!("pin-value={PIN}");
    let by_uri = |path: &Path| ModuleConfig::new(path).uri(format!("pkcs11:?{query}"));
    for path in [
        &path,
        &folder.join("../deps").join(name),
        &link,
        Path::new(name),
    ] {
        let with = |pin| ModuleConfig::new(path).pin(Pin::from(pin));
        for same in [with(PIN), with(PIN).default_pin(), by_uri(path)] {
            sign(&open(&Client::with_module(same).unwrap())).unwrap();
        }
        let differs = |config| {
            let error = Client::with_module(config).unwrap_err();
            assert_eq!(error.code(), "ModuleInUse");
            error.to_string()
        };
        let told = differs(with("another-pin"));
        assert!(told.contains("with another PIN:"), "{told}");
        let told = differs(with(PIN).uri("pkcs11:token=device"));
        assert!(told.contains("with another URI:"), "{told}");
        let told = differs(with("another-pin").uri("pkcs11:token=device"));
        assert!(told.contains("with another PIN and URI:"), "{told}");
    }
    assert_eq!(program::faults().count(C_Initialize), 1);
}

#[test]
#[ignore = "run by another test"]
fn program_that_begins_with_a_name() {
    let path = Faults::module_path();
    let name = path.file_name().unwrap();
    let first = Client::with_module(ModuleConfig::new(name).pin(Pin::from(PIN))).unwrap();
    sign(&open(&first)).unwrap();
    let wrong = config().pin(Pin::from("another-pin"));
    let error = Client::with_module(wrong).unwrap_err();
    assert_eq!(error.code(), "ModuleInUse");
    sign(&open(&Client::with_module(config()).unwrap())).unwrap();
    assert_eq!(program::faults().count(C_Initialize), 1);
}

#[test]
fn after_a_fork_the_module_is_the_parents() {
    run("program_that_forks");
}

#[test]
#[ignore = "run by another test"]
fn program_that_forks() {
    let faults = program::faults();
    let client = Client::with_module(config()).unwrap();
    let key = open(&client);
    sign(&key).unwrap();
    let before = faults.counts();
    let (mut told, mut tell) = pipe().unwrap();
    // SAFETY: the child asks, tells and ends; what glibc's malloc needs is made good by its fork().
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let codes = [
                sign(&key).unwrap_err().code(),
                Client::with_module(config()).unwrap_err().code(),
            ];
            drop((client, key));
            let _ = tell.write_all(codes.join(" ").as_bytes());
            kill(getpid(), Signal::SIGKILL).unwrap();
            process::abort()
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let mut codes = String::new();
            told.read_to_string(&mut codes).unwrap();
            waitpid(child, None).unwrap();
            assert_eq!(codes, "Forked Forked");
        }
    }
    let calls = faults.counts().since(&before);
    assert_eq!(calls.total(), 0, "the child has called the module: {calls}");
    sign(&key).unwrap();
}

#[test]
fn of_two_hundred_threads_at_once_none_is_turned_away() {
    run("program_with_many_threads");
}

#[test]
#[ignore = "run by another test"]
fn program_with_many_threads() {
    let faults = program::faults();
    let client = Client::with_module(config()).unwrap();
    let key = open(&client);
    // More of them wait than the engine lets wait.
    faults.set([on(C_Sign).delays(20)]);
    let start = Barrier::new(200);
    let sign = || {
        start.wait();
        sign(&key)
    };
    let failed: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..200).map(|_| scope.spawn(sign)).collect();
        let ended = all.into_iter().map(|thread| thread.join().unwrap());
        ended.filter_map(Result::err).collect()
    });
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
}

#[test]
fn trouble_heals_and_what_others_have_initialised_stays() {
    run("program_with_trouble");
}

#[test]
#[ignore = "run by another test"]
fn program_with_trouble() {
    let faults = program::faults();
    let transport = Arc::new(ModuleTransport::load(config()).unwrap());
    let key = open(&Client::with_transport(transport.clone()));
    for code in [CKR_DEVICE_ERROR, CKR_SESSION_HANDLE_INVALID] {
        faults.set([on(C_Sign).next(1).returns(code)]);
        sign(&key).unwrap();
    }
    assert_eq!(transport.engine().trouble(), None);
    drop((key, transport));
    assert_eq!(faults.count(C_Finalize), faults.count(C_Initialize));

    let module = Pkcs11::new(Faults::module_path()).unwrap();
    let os_locking = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    module.initialize(os_locking).unwrap();
    let before = faults.count(C_Finalize);
    sign(&open(&Client::with_module(config()).unwrap())).unwrap();
    assert_eq!(faults.count(C_Finalize), before);
    assert_eq!(module.get_slots_with_initialized_token().unwrap().len(), 1);
}
