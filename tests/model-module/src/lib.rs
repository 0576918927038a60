//! A PKCS#11 module whose tokens live in the memory of a test and count each wrong PIN, so that tens of thousands of
//! sequences can be played against the real engine in seconds.
//!
//! The engine loads `libp11_model_module.so`, which has nothing but a place for a list of functions. [`load`] puts the
//! functions of the test's own process there: what they do is seen and steered through [`device`].

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "only tests use this crate, and a panic is how a test says what went wrong"
)]

mod device;
mod functions;

use std::env;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_ARGUMENTS_BAD, CKR_GENERAL_ERROR, CKR_OK};
use libloading::{Library, Symbol};

pub use device::{Answer, Device, Event, Role, SO, Sent, Token, pin, public_key};

/// The tokens that the module shows. One test has them at a time.
pub fn device() -> MutexGuard<'static, Device> {
    static DEVICE: Mutex<Device> = Mutex::new(Device::new());
    DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file of the module, which gives the functions of this process to whoever loads it.
///
/// # Panics
/// Where cargo has not built it beside the test.
pub fn load() -> PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = file();
        // SAFETY: the library runs no code when it is loaded, and stays loaded; its symbol has this type, as is seen below.
        #[allow(
            clippy::expect_used,
            reason = "a panic is how a test says what is wrong"
        )]
        unsafe {
            let library = Library::new(&file).expect("the module can be loaded");
            let set: Symbol<'_, unsafe extern "C" fn(*mut CK_FUNCTION_LIST)> = library
                .get(b"p11_model_set_functions")
                .expect("it is this module");
            set(Box::leak(Box::new(functions::list())));
            std::mem::forget(library);
        }
        file
    })
    .clone()
}

#[allow(
    clippy::expect_used,
    reason = "a panic is how a test says what is wrong"
)]
fn file() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let mut folders = test.ancestors().skip(1).take(2);
    let file = folders.find_map(|folder| {
        let file = folder.join("libp11_model_module.so");
        file.is_file().then_some(file)
    });
    file.expect("cargo builds the module beside the tests of its package")
}

/// In the loaded library: the functions of the process that has loaded it.
static FUNCTIONS: AtomicPtr<CK_FUNCTION_LIST> = AtomicPtr::new(null_mut());

/// The entry of every PKCS#11 module (PKCS#11 2.40, 5.4).
///
/// # Safety
/// `list` must be null or valid for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    let functions = FUNCTIONS.load(Ordering::Acquire);
    match (list.is_null(), functions.is_null()) {
        (true, _) => CKR_ARGUMENTS_BAD,
        (_, true) => CKR_GENERAL_ERROR,
        (false, false) => {
            // SAFETY: as the caller promises.
            unsafe { *list = functions };
            CKR_OK
        }
    }
}

/// What the module hands out from now on.
///
/// # Safety
/// `functions` must be valid for as long as the module is loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn p11_model_set_functions(functions: *mut CK_FUNCTION_LIST) {
    FUNCTIONS.store(functions, Ordering::Release);
}
