//! Signing with keys that want a context-specific login for each signature.

use cryptoki_sys::*;

use crate::call::Call;
use crate::module::forward;
use crate::real;
use crate::rules::Rule;

/// The longest signature (RSA with 16,384 bits).
const MAX_SIGNATURE: usize = 2048;

/// # Safety
/// As PKCS#11 demands for `C_SignInit`.
pub(crate) unsafe fn init(
    call: &Call,
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    // SAFETY: as the caller promises.
    let rv = unsafe { forward::C_SignInit(session, mechanism, key) };
    if rv == CKR_OK {
        call.state
            .sessions
            .set_awaits_login(session, wants_login(call, session, key));
    }
    rv
}

fn wants_login(call: &Call, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> bool {
    let mut labels = call.rules.iter().filter_map(|rule| match rule {
        Rule::AlwaysAuthenticate { key } => Some(key),
        _ => None,
    });
    // The key is only asked when some rule could concern it.
    labels.next().is_some_and(|first| {
        let Some((CKO_PRIVATE_KEY, label)) = real::class_and_label(session, key) else {
            return false;
        };
        *first == label || labels.any(|other| *other == label)
    })
}

/// # Safety
/// As PKCS#11 demands for `C_Sign`.
pub(crate) unsafe fn sign(
    call: &Call,
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_len: *mut CK_ULONG,
) -> CK_RV {
    if !call.awaits_login(session) {
        // SAFETY: as the caller promises.
        return unsafe { forward::C_Sign(session, data, data_len, signature, signature_len) };
    }
    // A `C_Sign` that fails ends the operation (PKCS#11 2.40, 5.11): the signature goes nowhere.
    let mut nowhere = [0; MAX_SIGNATURE];
    let mut nowhere_len = MAX_SIGNATURE as CK_ULONG;
    // SAFETY: the data are as the caller promises, and the buffer has its length.
    unsafe {
        forward::C_Sign(
            session,
            data,
            data_len,
            nowhere.as_mut_ptr(),
            &mut nowhere_len,
        )
    };
    call.state.sessions.set_awaits_login(session, false);
    CKR_USER_NOT_LOGGED_IN
}

/// # Safety
/// As PKCS#11 demands for `C_SignUpdate`.
pub(crate) unsafe fn update(
    call: &Call,
    session: CK_SESSION_HANDLE,
    part: *mut CK_BYTE,
    part_len: CK_ULONG,
) -> CK_RV {
    if call.awaits_login(session) {
        return CKR_USER_NOT_LOGGED_IN;
    }
    // SAFETY: as the caller promises.
    unsafe { forward::C_SignUpdate(session, part, part_len) }
}
