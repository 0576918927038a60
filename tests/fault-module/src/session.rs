//! Opening and closing sessions: keeps the list of them, and holds the limit.

use std::ffi::c_void;

use cryptoki_sys::*;

use crate::call::Call;
use crate::real;
use crate::rules::TokenFault;

/// # Safety
/// `session` must be null or valid.
pub(crate) unsafe fn open(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    slot: CK_SLOT_ID,
    _: CK_FLAGS,
    _: *mut c_void,
    _: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    let rv = forward();
    if rv != CKR_OK {
        return rv;
    }
    // SAFETY: the call succeeded, so the pointer is valid.
    let handle = unsafe { *session };
    let open = call.state.sessions.opened(handle, slot);
    // Counted with the new one in it, so that two threads cannot both take the last place.
    let beyond =
        |fault: &TokenFault| matches!(fault, TokenFault::SessionLimit(max) if open > *max as usize);
    if call.token_faults().any(beyond) {
        call.state.sessions.closed(handle);
        real::close_session(handle);
        return CKR_SESSION_COUNT;
    }
    CKR_OK
}

pub(crate) fn close(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    session: CK_SESSION_HANDLE,
) -> CK_RV {
    let rv = forward();
    if rv == CKR_OK {
        call.state.sessions.closed(session);
    }
    rv
}

pub(crate) fn close_all(call: &Call, forward: impl FnOnce() -> CK_RV, slot: CK_SLOT_ID) -> CK_RV {
    let rv = forward();
    if rv == CKR_OK {
        call.state.sessions.closed_all(slot);
    }
    rv
}
