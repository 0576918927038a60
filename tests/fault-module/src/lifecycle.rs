//! `C_Initialize` and `C_Finalize`: what a module may refuse about locking, and what ends with the load.

use std::ffi::c_void;

use cryptoki_sys::*;

use crate::call::Call;
use crate::real::call_real;
use crate::rules::Rule;

/// # Safety
/// `args` must be null or point to a `CK_C_INITIALIZE_ARGS`.
pub(crate) unsafe fn initialize(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    args: *mut c_void,
) -> CK_RV {
    let has = |wanted| call.rules.iter().any(|rule| *rule == wanted);
    if has(Rule::WantsNull) && !args.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    if !has(Rule::CantLock) && !has(Rule::WantsNull) {
        return forward();
    }
    // SAFETY: as the caller promises.
    let given = unsafe { args.cast::<CK_C_INITIALIZE_ARGS>().as_ref() };
    if given.is_some_and(|args| args.flags & CKF_OS_LOCKING_OK != 0) {
        return CKR_CANT_LOCK;
    }
    // The real module locks all the same: an application that calls it from two threads shall fail by an
    // assertion on `max_concurrent`, not crash.
    let mut args = CK_C_INITIALIZE_ARGS {
        CreateMutex: None,
        DestroyMutex: None,
        LockMutex: None,
        UnlockMutex: None,
        flags: CKF_OS_LOCKING_OK,
        pReserved: given.map_or(std::ptr::null_mut(), |args| args.pReserved),
    };
    // SAFETY: the arguments outlive the call.
    unsafe { call_real!(C_Initialize((&raw mut args).cast())) }
}

pub(crate) fn finalize(call: &Call, forward: impl FnOnce() -> CK_RV, _: *mut c_void) -> CK_RV {
    let rv = forward();
    if rv == CKR_OK {
        call.state.sessions.clear();
        call.state.pins.forget_learnt();
    }
    rv
}
