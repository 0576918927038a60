//! Logins whose answer tells nothing, or never comes: how many tries they may cost, and who gets in afterwards.

use std::{fs, os::unix::fs::PermissionsExt, thread, time::Duration};

use nix::{sys::stat::Mode, unistd::mkfifo};
use p11_client::{
    Client, Config, ErrorCode,
    message::{ChangePin, OpenKey},
};
use p11_fault_module::{
    Function::{C_Login, C_SetPIN},
    Rule,
    cryptoki_sys::*,
    on,
};
use p11_tests::{
    client::{TestClient, refused},
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    server::Server,
    text::assert_contains,
    wait::{TIMEOUT, wait_until},
};
use tempfile::TempDir;

const WRONG: &str = "wrong-pin-1";
const NEW: &str = "another-pin";

/// More than the second that `quick-server` waits before it sends a PIN again of which nothing was told.
const PAUSE: Duration = Duration::from_millis(1_300);

/// A server that is started again and again.
struct Restarted {
    fixture: Fixture,
    folder: TempDir,
    pin: Option<&'static str>,
}

impl Restarted {
    fn new(pin: Option<&'static str>) -> Self {
        Self {
            fixture: Fixture::new(KeyKind::P256),
            folder: tempfile::tempdir().unwrap(),
            pin,
        }
    }

    fn start(&self) -> Server {
        let builder = self.fixture.server().quick();
        let builder = builder.envs([("RUNTIME_DIRECTORY", self.folder.path())]);
        let server = match self.pin {
            Some(pin) => builder.pin(pin).start(),
            // Not even the default one.
            None => builder.envs([("TEDGE_DEVICE_CRYPTOKI_PIN", "")]).start(),
        };
        for secret in [WRONG, NEW] {
            server.secrets().add(secret);
        }
        server
    }

    /// How often PINs are sent by all that ask, several times each, in several lives of the server.
    fn sent(&self, fault: Rule, ask: impl Fn(&TestClient, usize)) -> u64 {
        self.fixture.faults.set([fault]);
        let sent = || {
            let calls = self.fixture.faults.counts();
            calls.of(C_Login) + calls.of(C_SetPIN)
        };
        let before = sent();
        for round in 0..4 {
            let server = self.start();
            for number in 0..3 {
                ask(&server.client(), 3 * round + number);
                thread::sleep(PAUSE);
            }
        }
        sent() - before
    }
}

fn unclear() -> [CK_RV; 3] {
    [CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, CKR_DEVICE_ERROR]
}

#[test]
fn unclear_answers_to_the_servers_pin_cost_two_tries_over_all_restarts() {
    thread::scope(|scope| {
        for code in unclear() {
            scope.spawn(move || {
                let restarted = Restarted::new(Some(WRONG));
                let fault = on(C_Login).after().returns(code);
                let ask = |client: &TestClient, _| drop(client.open(KEY).map(drop).unwrap_err());
                assert_eq!(restarted.sent(fault, ask), 2);
                let server = restarted.start();
                let told = refused(server.client().open(KEY), ErrorCode::PinGuarded);
                assert_contains(told.message, ["two unclear answers", "SIGHUP"]);
                server.sighup();
                restarted.fixture.faults.clear();
                refused(server.client().open(KEY), ErrorCode::PinIncorrect);
            });
        }
    });
}

/// The process dies in the login, by itself or since it hangs in it.
#[test]
fn a_login_that_ends_the_process_costs_two_tries_over_all_restarts() {
    thread::scope(|scope| {
        for fault in [
            on(C_Login).aborts(),
            on(C_Login).after().aborts(),
            on(C_Login).after().hangs_forever(),
        ] {
            scope.spawn(move || {
                let restarted = Restarted::new(Some(WRONG));
                let faults = &restarted.fixture.faults;
                faults.set([fault]);
                for _ in 0..4 {
                    let mut server = restarted.start();
                    thread::sleep(PAUSE);
                    let client = Client::new(Config::new(server.socket()));
                    client.open_key(OpenKey::new(KEY)).unwrap_err();
                    if faults.count(C_Login) < 2 {
                        assert!(!server.wait(TIMEOUT).success());
                    }
                }
                assert_eq!(faults.count(C_Login), 2);
            });
        }
    });
}

#[test]
fn clients_pins_and_the_security_officers_cost_no_more_either() {
    let numbered = |number| format!("guess-{number}");
    let of_clients = |client: &TestClient, number| {
        let guess = client.with_pin(&numbered(number / 2));
        drop(guess.open(KEY).map(drop).unwrap_err());
    };
    let of_officer = |client: &TestClient, number| {
        let so_pin = Some(numbered(number / 2).as_str().into());
        let reset = ChangePin::new(NEW).so_pin(so_pin).reset(true);
        client.change_pin(reset).unwrap_err();
    };
    let changes = |client: &TestClient, _| {
        let change = ChangePin::new(NEW).old_pin(Some(WRONG.into()));
        client.change_pin(change).unwrap_err();
    };
    let code = CKR_GENERAL_ERROR;
    thread::scope(|scope| {
        scope.spawn(|| {
            let restarted = Restarted::new(None);
            let fault = on(C_Login).after().returns(code);
            assert_eq!(restarted.sent(fault, of_clients), 2);
        });
        scope.spawn(|| {
            let restarted = Restarted::new(None);
            let fault = on(C_Login).after().returns(code);
            assert_eq!(restarted.sent(fault, of_officer), 2);
        });
        scope.spawn(|| {
            let restarted = Restarted::new(None);
            let fault = on(C_SetPIN).after().returns(code);
            assert_eq!(restarted.sent(fault, changes), 2);
        });
    });
}

/// A server that is restarted twice while a resource manager is late, and how often it has sent its PIN.
fn late() -> (Restarted, Server, u64) {
    let restarted = Restarted::new(Some(PIN));
    let faults = &restarted.fixture.faults;
    faults.set([on(C_Login).returns(CKR_GENERAL_ERROR)]);
    for _ in 0..2 {
        let server = restarted.start();
        for _ in 0..2 {
            assert!(server.client().open(KEY).is_err());
        }
    }
    let server = restarted.start();
    faults.clear();
    let sent = faults.count(C_Login);
    (restarted, server, sent)
}

#[test]
fn the_right_pin_gets_in_by_itself_after_a_resource_manager_that_was_late() {
    // On a machine that needs a second for two requests the pause is over in between.
    let in_time = (0..5).map(|_| late()).find(|(.., sent)| *sent == 1);
    let (restarted, server, _) = in_time.unwrap();
    wait_until(|| server.client().open(KEY).is_ok());
    assert_eq!(restarted.fixture.faults.count(C_Login), 2);
    drop(server);
    // What was accepted is sent at once.
    restarted.start().client().open(KEY).unwrap();
}

#[test]
fn a_file_of_refusals_that_is_none_is_said_and_hangs_nothing() {
    let restarted = Restarted::new(Some(PIN));
    let path = restarted.folder.path().join("refused-pins");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let server = restarted.start();
    assert_contains(server.log(), ["WARN", "refused-pins", "no regular file"]);
    server.client().open(KEY).unwrap().sign().unwrap();
}

/// Who may write there makes the server forget, or believe, what it likes.
#[test]
fn a_folder_of_refusals_that_others_may_write_is_said() {
    let restarted = Restarted::new(Some(PIN));
    let folder = restarted.folder.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    let line = restarted.start().wait_for_log("refused PINs");
    let shown = folder.display().to_string();
    assert_contains(line, [" WARN ", shown.as_str(), "chmod 0700"]);
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    let server = restarted.start();
    server.client().open(KEY).unwrap();
    assert!(!server.log().contains("refused PINs"));
}
