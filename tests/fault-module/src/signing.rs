//! Signing with keys that want a context-specific login for each signature.

use cryptoki_sys::*;

use crate::call::Call;
use crate::real;
use crate::rules::Rule;

pub(crate) fn init(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    session: CK_SESSION_HANDLE,
    _: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let rv = forward();
    if rv == CKR_OK {
        let wants_login = wants_login(call, session, key);
        call.state.sessions.set_awaits_login(session, wants_login);
    }
    rv
}

fn wants_login(call: &Call, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> bool {
    let mut labels = call.rules.iter().filter_map(|rule| match rule {
        Rule::AlwaysAuthenticate(label) => Some(label),
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

pub(crate) fn sign(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    session: CK_SESSION_HANDLE,
    _: *mut CK_BYTE,
    _: CK_ULONG,
    _: *mut CK_BYTE,
    _: *mut CK_ULONG,
) -> CK_RV {
    if !call.awaits_login(session) {
        return forward();
    }
    real::end_signing(session);
    call.state.sessions.set_awaits_login(session, false);
    CKR_USER_NOT_LOGGED_IN
}

pub(crate) fn update(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    session: CK_SESSION_HANDLE,
    _: *mut CK_BYTE,
    _: CK_ULONG,
) -> CK_RV {
    if call.awaits_login(session) {
        return CKR_USER_NOT_LOGGED_IN;
    }
    forward()
}
