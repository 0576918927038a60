//! Opening and closing sessions: keeps the list of them, and holds the limit.

use std::ffi::c_void;

use cryptoki_sys::*;

use crate::call::Call;
use crate::module::forward;
use crate::rules::Rule;
use crate::slots::visible_id;

/// # Safety
/// As PKCS#11 demands for `C_OpenSession`.
pub(crate) unsafe fn open(
    call: &Call,
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    // SAFETY: as the caller promises.
    let rv = unsafe { forward::C_OpenSession(slot, flags, application, notify, session) };
    if rv != CKR_OK {
        return rv;
    }
    // SAFETY: the call succeeded, so the pointer is valid.
    let handle = unsafe { *session };
    let open = call.state.sessions.opened(handle, slot);
    // Counted with the new one in it, so that two threads cannot both take the last place.
    let beyond = |rule: &Rule| matches!(rule, Rule::SessionLimit { max, token } if open > *max as usize && call.is_about(token));
    if call.rules.iter().any(beyond) {
        call.state.sessions.closed(handle);
        // SAFETY: the session is open, and the application does not know it.
        unsafe { forward::C_CloseSession(handle) };
        return CKR_SESSION_COUNT;
    }
    CKR_OK
}

/// # Safety
/// None beyond PKCS#11; no pointers.
pub(crate) unsafe fn close(call: &Call, session: CK_SESSION_HANDLE) -> CK_RV {
    // SAFETY: no pointers.
    let rv = unsafe { forward::C_CloseSession(session) };
    if rv == CKR_OK {
        call.state.sessions.closed(session);
    }
    rv
}

/// # Safety
/// None beyond PKCS#11; no pointers.
pub(crate) unsafe fn close_all(call: &Call, slot: CK_SLOT_ID) -> CK_RV {
    // SAFETY: no pointers.
    let rv = unsafe { forward::C_CloseAllSessions(slot) };
    if rv == CKR_OK {
        call.state.sessions.closed_all(slot);
    }
    rv
}

/// # Safety
/// As PKCS#11 demands for `C_GetSessionInfo`.
pub(crate) unsafe fn info(
    call: &Call,
    session: CK_SESSION_HANDLE,
    info: *mut CK_SESSION_INFO,
) -> CK_RV {
    // SAFETY: as the caller promises.
    let rv = unsafe { forward::C_GetSessionInfo(session, info) };
    if rv == CKR_OK {
        // SAFETY: the call succeeded, so the pointer is valid.
        unsafe { (*info).slotID = visible_id(&call.rules, (*info).slotID) };
    }
    rv
}
