//! Keys of a software TPM sign through the socket, by tpm2-pkcs11.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use p11_client::{ErrorCode, message::ChangePin};
use p11_fault_module::{Faults, Function::C_Login, token};
use p11_tests::{
    client::{P256, refused},
    fixture::assert_no_search_after_idleness,
    server::{Builder, Server},
    tools::run,
    tpm::Tpm,
};

const PIN: &str = "482915";
const SO_PIN: &str = "771122";

struct Setup {
    tpm: Tpm,
    faults: Faults,
}

/// A TPM with the token `device`.
fn setup() -> Setup {
    let tpm = Tpm::new();
    tpm.init_token("device", PIN, SO_PIN);
    let faults = Faults::new(tpm.module());
    Setup { tpm, faults }
}

impl Setup {
    fn server(&self) -> Builder {
        Server::builder()
            .module(&Faults::module_path())
            .envs(self.tpm.envs())
            .envs(self.faults.envs())
    }
}

#[test]
fn after_a_time_of_idleness_a_signature_of_a_tpm_costs_two_calls_more_and_no_search() {
    let setup = setup();
    for algorithm in ["ecc256", "rsa2048"] {
        setup.tpm.generate("device", PIN, algorithm, algorithm);
    }
    let server = setup.server().pin(PIN).quick().start();
    for algorithm in ["ecc256", "rsa2048"] {
        let uri = format!("pkcs11:token=device;object={algorithm}");
        let key = server.client().open(&uri).unwrap();
        key.sign().unwrap();
        assert_no_search_after_idleness(&setup.faults, &key);
    }
}

#[test]
fn a_token_of_a_tpm_is_named_by_its_model_without_the_nuls_and_found_with_them_too() {
    let setup = setup();
    setup.tpm.generate("device", PIN, "ecc256", "key");
    let model = "model=SW%20%20%20TPM";
    // The server's scope is as ListTokens prints it.
    let server = setup.server().pin(PIN).uri(&format!("pkcs11:{model}"));
    let server = server.start();
    let client = server.client();
    let token = client.token("device").uri;
    assert!(!token.contains("%00"), "{token}");
    // p11tool prints what the module pads.
    let padded = token.replace(model, &format!("{model}%00%00%00%00%00%00%00%00"));
    for token in [token, padded] {
        let key = client.open(&format!("{token};object=key")).unwrap();
        assert!(!key.told().uri.contains("%00"), "{}", key.told().uri);
        key.sign().unwrap();
    }
    let pkcs11 = "pkcs11:token=device";
    client.create_key(pkcs11, P256, "made", None).unwrap();
}

#[test]
fn a_key_that_another_program_has_made_anew_takes_the_place_of_the_old_one_after_sighup() {
    let setup = setup();
    let tpm = &setup.tpm;
    let old = tpm.generate("device", PIN, "ecc256", "key");
    let server = setup.server().pin(PIN).start();
    let client = server.client();
    let uri = "pkcs11:token=device;object=key";
    let key = client.open(uri).unwrap();
    assert_eq!(key.told().spki, old);
    key.sign().unwrap();

    tpm.delete_keys("device");
    let new = tpm.generate("device", PIN, "ecc256", "key");
    server.sighup();
    refused(key.sign(), ErrorCode::KeyChanged);
    let key = client.open(uri).unwrap();
    assert_eq!(key.told().spki, new);
    key.sign().unwrap();
}

#[test]
fn restarts_with_a_wrong_pin_leave_the_tpm_open_and_its_lockout_is_told_as_what_it_is() {
    let setup = setup();
    setup.tpm.init_token("second", PIN, SO_PIN);
    setup.tpm.generate("device", PIN, "ecc256", "key");
    let uri = "pkcs11:token=device;object=key";
    let folder = tempfile::tempdir().unwrap();
    let start = |pin| {
        let runtime = [("RUNTIME_DIRECTORY", folder.path())];
        let server = setup.server().envs(runtime).pin(pin).start();
        server.secrets().add(PIN);
        server
    };
    for _ in 0..3 {
        refused(start("999111").client().open(uri), ErrorCode::PinIncorrect);
    }
    assert_eq!(setup.tpm.lockout_counter(), 1);
    // All its tokens count together.
    let server = start("999111");
    let second = |pin| {
        let client = server.client().with_pin(pin);
        client.list_keys("pkcs11:token=second")
    };
    let without = server.client().list_keys("pkcs11:token=second");
    refused(without, ErrorCode::PinIncorrect);
    assert_eq!(setup.tpm.lockout_counter(), 2);
    let told = refused(second("999333"), ErrorCode::PinGuarded);
    assert!(told.message.contains("TPM"), "{told}");
    assert_eq!(setup.tpm.lockout_counter(), 2);
    drop(server);

    setup.tpm.lock_out();
    let server = start(PIN);
    let told = refused(server.client().open(uri), ErrorCode::PinLocked);
    for words in ["dictionary-attack", "Nothing is lost", "--clear-lockout"] {
        assert!(told.message.contains(words), "{told}");
    }
    assert!(!told.message.contains("security officer"), "{told}");
    run(setup
        .tpm
        .command("tpm2_dictionarylockout")
        .arg("--clear-lockout"));
    server.client().open(uri).unwrap().sign().unwrap();
}

#[test]
fn a_wrong_pin_costs_one_try_of_the_tpm() {
    let setup = setup();
    setup.tpm.generate("device", PIN, "ecc256", "key");
    let uri = "pkcs11:token=device;object=key";
    let toml = |pin| format!("[device.cryptoki]\npin = \"{pin}\"\n");
    let server = setup.server().tedge_toml(&toml("999111")).start();
    for secret in ["999111", PIN] {
        server.secrets().add(secret);
    }
    let client = server.client();
    for _ in 0..20 {
        refused(client.open(uri), ErrorCode::PinIncorrect);
    }
    assert_eq!(setup.faults.count(C_Login), 1);
    assert_eq!(setup.tpm.lockout_counter(), 1);

    std::fs::write(server.folder().join("tedge.toml"), toml(PIN)).unwrap();
    server.sighup();
    client.open(uri).unwrap().sign().unwrap();
}

#[test]
fn the_pin_of_a_request_opens_a_tpm_that_refused_the_servers() {
    let setup = setup();
    setup.tpm.generate("device", PIN, "ecc256", "key");
    let server = setup.server().pin("999111").start();
    let client = server.client();
    let uri = "pkcs11:token=device;object=key";
    refused(client.open(uri), ErrorCode::PinIncorrect);
    client.with_pin(PIN).open(uri).unwrap().sign().unwrap();
    assert_eq!(setup.tpm.lockout_counter(), 1);
}

#[test]
fn a_restart_of_the_resource_manager_heals_by_the_second_request() {
    let mut setup = setup();
    setup.tpm.generate("device", PIN, "ecc256", "key");
    let server = setup.server().pin(PIN).start();
    let client = server.client();
    let key = client.open("pkcs11:token=device;object=key").unwrap();
    key.sign().unwrap();
    // Twice, since the second reload must not be late either.
    for restart in 0..2 {
        setup.tpm.restart_resource_manager();
        let first = key.sign();
        if let Err(failure) = &first {
            let is_due = matches!(
                failure.code,
                ErrorCode::Module | ErrorCode::ModuleUnavailable
            );
            assert!(is_due, "{}: {failure}", failure.code);
        }
        let logins = setup.faults.count(C_Login);
        key.sign().unwrap_or_else(|failure| {
            panic!(
                "restart {restart}: {:?}, then {}: {failure}",
                first.err(),
                failure.code
            )
        });
        assert!(setup.faults.count(C_Login) <= logins + 1);
        assert_eq!(client.status().trouble, None);
        assert_eq!(setup.tpm.lockout_counter(), 0);
        std::thread::sleep(std::time::Duration::from_secs(3));
    }
}

#[test]
fn right_pins_between_wrong_ones_give_a_client_no_more_tries_of_the_tpm() {
    let setup = setup();
    setup.tpm.init_token("second", PIN, SO_PIN);
    let server = setup.server().start();
    let client = server.client();
    let list = |pin: &str, token: &str| {
        server.secrets().add(pin);
        client
            .with_pin(pin)
            .list_keys(&format!("pkcs11:token={token}"))
    };
    let reset = |so_pin: &str| {
        server.secrets().add(so_pin);
        let change = ChangePin::new(PIN).uri(Some("pkcs11:token=device".into()));
        client.change_pin(change.so_pin(Some(so_pin.into())).reset(true))
    };
    list(PIN, "device").unwrap();
    for guess in 0..4 {
        setup.faults.set([token("device").logged_out()]);
        assert!(list(&format!("99911{guess}"), "device").is_err());
        list(PIN, "device").unwrap();
        assert!(reset(&format!("88811{guess}")).is_err());
    }
    assert_eq!(setup.tpm.lockout_counter(), 1);
    // Nor do other tokens that are asked at once.
    std::thread::scope(|scope| {
        for (pin, token) in [
            ("999221", "device"),
            ("999222", "second"),
            ("999223", "second"),
        ] {
            let list = &list;
            scope.spawn(move || assert!(list(pin, token).is_err()));
        }
    });
    assert!(setup.tpm.lockout_counter() <= 2);
}
