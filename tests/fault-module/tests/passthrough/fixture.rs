//! Two SoftHSM2 tokens and a folder of faults. Each part of a test runs in a process of its own, since a module is
//! initialised, and steered by the environment, once per process.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, exit};
use std::{env, fs};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use p11_fault_module::Faults;
use p11_fault_module::cryptoki_sys::*;
use tempfile::TempDir;

pub const ONE: &str = "token one";
pub const TWO: &str = "token two";
pub const PIN: &str = "1234";
pub const SO_PIN: &str = "567890";
pub const KEY: &str = "the key";

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// Tells the re-executed test the fixture's folder and which part it is to run.
const FOLDER: &str = "P11_TEST_FOLDER";
const PART: &str = "P11_TEST_PART";

/// The tokens and the faults of one test, for all its parts.
pub struct Fixture {
    pub faults: Faults,
    folder: PathBuf,
    parts: Cell<u32>,
    _temporary: Option<TempDir>,
}

/// How the process of a part ended.
pub struct Exit {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Fixture {
    pub fn new() -> Self {
        if let Some(folder) = env::var_os(FOLDER) {
            return Self {
                faults: Faults::attach(env::var_os("P11_FAULT_DIR").unwrap(), SOFTHSM),
                folder: folder.into(),
                parts: Cell::new(0),
                _temporary: None,
            };
        }
        assert!(
            Path::new(SOFTHSM).exists(),
            "{SOFTHSM} is missing: apt-get install softhsm2"
        );
        let temporary = TempDir::with_prefix("p11-fault-test-").unwrap();
        let fixture = Self {
            faults: Faults::new(SOFTHSM),
            folder: temporary.path().to_owned(),
            parts: Cell::new(0),
            _temporary: Some(temporary),
        };
        let tokens = fixture.folder.join("tokens");
        fs::create_dir(&tokens).unwrap();
        let configuration = format!(
            "directories.tokendir = {}\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(fixture.softhsm().1, configuration).unwrap();
        for label in [ONE, TWO] {
            let made = Command::new("softhsm2-util")
                .args([
                    "--init-token",
                    "--free",
                    "--label",
                    label,
                    "--pin",
                    PIN,
                    "--so-pin",
                    SO_PIN,
                ])
                .envs([fixture.softhsm()])
                .output()
                .expect("softhsm2-util is missing: apt-get install softhsm2");
            assert!(made.status.success(), "softhsm2-util failed: {made:?}");
        }
        fixture
    }

    /// Runs a part of the test, which has to succeed.
    pub fn run<P: FnOnce(&Faults)>(&self, part: P) {
        let Exit { status, stderr } = self.run_to_exit(part);
        assert!(status.success(), "the part ended with {status}:\n{stderr}");
    }

    /// Runs a part of the test, however it ends.
    pub fn run_to_exit<P: FnOnce(&Faults)>(&self, part: P) -> Exit {
        self.run_without("", part)
    }

    /// Runs a part in a new process, which is this test again, up to this part; without an environment variable.
    pub fn run_without<P: FnOnce(&Faults)>(&self, variable: &str, part: P) -> Exit {
        let number = self.parts.replace(self.parts.get() + 1).to_string();
        let done = self.folder.join(format!("done {number}"));
        match env::var(PART) {
            Ok(wanted) if wanted == number => {
                part(&self.faults);
                fs::write(done, "").unwrap();
                exit(0);
            }
            Ok(_) => Exit {
                status: ExitStatus::default(),
                stderr: String::new(),
            },
            Err(_) => {
                let child = Command::new(env::current_exe().unwrap())
                    .args(["--exact", test_name::<P>(), "--nocapture"])
                    .envs([
                        self.softhsm(),
                        (FOLDER, self.folder.clone().into()),
                        (PART, number.into()),
                    ])
                    .envs(self.faults.envs())
                    .env_remove(variable)
                    .output()
                    .unwrap();
                let stderr = String::from_utf8_lossy(&child.stderr).into_owned();
                // A filter that matches no test ends well, too.
                assert!(
                    done.exists() || !child.status.success(),
                    "the part was not run: {stderr}"
                );
                Exit {
                    status: child.status,
                    stderr,
                }
            }
        }
    }

    fn softhsm(&self) -> (&'static str, OsString) {
        ("SOFTHSM2_CONF", self.folder.join("softhsm2.conf").into())
    }
}

/// The name of the test in which a closure stands, as `--exact` takes it.
fn test_name<A>() -> &'static str {
    let name = std::any::type_name::<A>();
    let (_crate, name) = name.split_once("::").unwrap();
    name.split("::{{closure}}").next().unwrap()
}

/// The module, loaded and not initialised.
pub fn load() -> Pkcs11 {
    Pkcs11::new(Faults::module_path()).unwrap()
}

/// The module, initialised.
pub fn start() -> Pkcs11 {
    let module = load();
    initialize(&module).unwrap();
    module
}

pub fn initialize(module: &Pkcs11) -> Result<(), Error> {
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
}

pub fn slot(module: &Pkcs11, label: &str) -> Slot {
    let slots = module.get_slots_with_token().unwrap();
    let mut found = slots.into_iter().filter(|slot| {
        module
            .get_token_info(*slot)
            .is_ok_and(|token| token.label() == label)
    });
    found.next().unwrap_or_else(|| panic!("no token {label:?}"))
}

pub fn open(module: &Pkcs11, label: &str) -> Session {
    module.open_rw_session(slot(module, label)).unwrap()
}

/// A session of a token where the user is logged in.
pub fn open_and_login(module: &Pkcs11, label: &str) -> Session {
    let session = open(module, label);
    login(&session, PIN).unwrap();
    session
}

pub fn login(session: &Session, pin: &str) -> Result<(), Error> {
    session.login(UserType::User, Some(&pin.to_owned().into()))
}

pub fn pin(pin: &str) -> AuthPin {
    pin.to_owned().into()
}

/// Makes a P-256 key in the session's token.
pub fn make_key(session: &Session) -> ObjectHandle {
    let public = [
        Attribute::Token(true),
        Attribute::Label(KEY.into()),
        Attribute::EcParams(P256.to_vec()),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Label(KEY.into()),
        Attribute::Sign(true),
    ];
    let made = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
    made.unwrap().1
}

/// The object identifier of P-256 in DER.
pub const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

pub fn find(session: &Session, class: ObjectClass) -> ObjectHandle {
    let found = session.find_objects(&[Attribute::Class(class), Attribute::Label(KEY.into())]);
    found
        .unwrap()
        .into_iter()
        .next()
        .expect("the key is not there")
}

/// Signs with `C_SignInit`, `C_Sign` for the length, `C_Sign`.
pub fn sign(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::Ecdsa, key, &[7; 32])
}

/// `C_Sign` alone, which cryptoki lacks; through a second load of the module.
pub fn c_sign(session: &Session) -> CK_RV {
    let mut list = std::ptr::null_mut();
    let (mut data, mut signature, mut len) = ([7; 32], [0; 64], 64);
    // SAFETY: the module is loaded by its own function list, and all buffers outlive the call.
    unsafe {
        let module = cryptoki_sys::Pkcs11::new(Faults::module_path()).unwrap();
        assert_eq!(module.C_GetFunctionList(&mut list), CKR_OK);
        (*list).C_Sign.unwrap()(
            session.handle(),
            data.as_mut_ptr(),
            32,
            signature.as_mut_ptr(),
            &mut len,
        )
    }
}

/// The code with which a call failed.
#[track_caller]
pub fn code<T>(result: Result<T, Error>) -> RvError {
    match result {
        Ok(_) => panic!("the call succeeded"),
        Err(Error::Pkcs11(code, _)) => code,
        Err(error) => panic!("no code: {error}"),
    }
}
