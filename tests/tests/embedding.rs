//! The engine as a library, in a program that uses the module itself: it is left in peace.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which fail by panicking"
)]

use std::{thread, time::Duration};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    session::{Session, SessionState, UserType},
    types::AuthPin,
};
use p11_fault_module::{Faults, Function::*, cryptoki_sys::*, every_token, on};
use p11_proto::{
    Request, Response,
    message::{OpenKey, OpenedKey, Sign},
};
use p11_server::{Engine, Service, Settings, Timeouts, Unrestricted};
use p11_tests::{
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    program,
};

#[test]
fn a_program_that_has_initialised_the_module_and_logged_in_stays_so() {
    program::run(&Fixture::new(KeyKind::P256), "program_that_is_logged_in");
}

#[test]
fn a_program_that_has_initialised_the_module_keeps_its_session() {
    program::run(
        &Fixture::new(KeyKind::P256),
        "program_that_is_not_logged_in",
    );
}

struct Program {
    faults: Faults,
    module: Pkcs11,
    engine: Engine,
}

impl Program {
    fn new() -> Self {
        let path = Faults::module_path();
        let module = Pkcs11::new(&path).unwrap();
        let os_locking = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        module.initialize(os_locking).unwrap();
        let mut settings = Settings::default();
        settings.pin = Some(PIN.into());
        let mut timeouts = Timeouts::default();
        timeouts.first_pause = Duration::from_millis(50);
        timeouts.longest_pause = Duration::from_millis(200);
        timeouts.missing = Duration::from_millis(200);
        let engine = Engine::load_with(&path, settings, timeouts).unwrap();
        engine.start().unwrap();
        Self {
            faults: program::faults(),
            module,
            engine,
        }
    }

    fn session(&self) -> Session {
        let slots = self.module.get_slots_with_initialized_token().unwrap();
        let [slot] = slots.as_slice() else {
            panic!("{slots:?}")
        };
        self.module.open_rw_session(*slot).unwrap()
    }

    fn open(&self) -> OpenedKey {
        let open = Request::OpenKey(OpenKey::new(KEY));
        match self.engine.call(&open, &Unrestricted).unwrap() {
            Response::Key(key) => key,
            other => panic!("{other:?}"),
        }
    }

    fn signs(&self) -> bool {
        let key = self.open();
        let scheme = *key.schemes.first().unwrap();
        let sign = Sign::new(KEY, scheme, b"message".to_vec(), key.identity);
        let answer = self.engine.call(&Request::Sign(sign), &Unrestricted);
        matches!(answer, Ok(Response::Signature(_)))
    }

    /// Whatever happens, the program's module is neither finalised nor logged out, and no session is left behind.
    fn has_trouble(&self) {
        assert!(self.signs());
        let before = self.faults.counts();
        for round in 0..5 {
            for code in [
                CKR_DEVICE_ERROR,
                CKR_GENERAL_ERROR,
                CKR_SESSION_HANDLE_INVALID,
                CKR_USER_NOT_LOGGED_IN,
                CKR_CRYPTOKI_NOT_INITIALIZED,
            ] {
                self.faults.set([on(C_SignInit).next(2).returns(code)]);
                self.signs();
                self.faults.clear();
                // A miss is a reason for a reload where the module is the engine's own.
                let missing = Request::OpenKey(OpenKey::new("pkcs11:token=missing"));
                self.engine.call(&missing, &Unrestricted).unwrap_err();
                thread::sleep(Duration::from_millis(250));
                assert!(self.signs(), "{round}: {code:#x}");
            }
        }
        let calls = self.faults.counts().since(&before);
        assert_eq!(calls.of(C_Finalize), 0, "{calls}");
        assert_eq!(calls.of(C_Initialize), 0, "{calls}");
        assert_eq!(calls.of(C_Logout), 0, "{calls}");
        let open = self.faults.counts().open_sessions();
        assert!(open <= 1 + 3, "{open} sessions are open: {calls}");
    }

    fn shuts_down(&self) {
        let before = self.faults.counts();
        self.engine.shut_down();
        let calls = self.faults.counts().since(&before);
        assert_eq!(calls.of(C_Finalize), 0, "{calls}");
        assert_eq!(calls.of(C_Logout), 0, "{calls}");
        assert_eq!(self.faults.counts().open_sessions(), 1, "{calls}");
    }
}

#[test]
#[ignore = "run by another test"]
fn program_that_is_logged_in() {
    let program = Program::new();
    let session = program.session();
    session
        .login(UserType::User, Some(&AuthPin::new(PIN.into())))
        .unwrap();
    let logins = program.faults.count(C_Login);
    program.has_trouble();
    assert_eq!(program.faults.count(C_Login), logins);
    program.shuts_down();
    let state = session.get_session_info().unwrap().session_state();
    assert!(matches!(state, SessionState::RwUser), "{state:?}");
    let found = session.find_objects(&[]).unwrap();
    assert_eq!(found.len(), 2);
}

#[test]
#[ignore = "run by another test"]
fn program_that_is_not_logged_in() {
    let program = Program::new();
    let session = program.session();
    program.has_trouble();
    // It survives that its sessions are closed by the program, too.
    program.faults.set([every_token().logged_out()]);
    assert!(program.signs());
    program.shuts_down();
    session.get_session_info().unwrap();
}
