//! Signing with keys that want a context-specific login for each signature, or that fail.

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
    if let Some(rv) = failure(call, session, key) {
        return rv;
    }
    let rv = forward();
    if rv == CKR_OK {
        let wants_login = wants_login(call, session, key);
        call.state.sessions.set_awaits_login(session, wants_login);
    }
    rv
}

fn failure(call: &Call, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> Option<CK_RV> {
    let failing = call.rules.iter().filter_map(|rule| match rule {
        Rule::FailsToSign(label, rv) => Some((label, *rv)),
        _ => None,
    });
    of_key(failing, session, key)
}

fn wants_login(call: &Call, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> bool {
    let careful = call.rules.iter().filter_map(|rule| match rule {
        Rule::AlwaysAuthenticate(label) => Some((label, ())),
        _ => None,
    });
    of_key(careful, session, key).is_some()
}

/// What is said of the private key, by its label. It is only asked when something could concern it.
fn of_key<'r, T>(
    said: impl Iterator<Item = (&'r String, T)>,
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
) -> Option<T> {
    let mut said = said.peekable();
    said.peek()?;
    let Some((CKO_PRIVATE_KEY, label)) = real::class_and_label(session, key) else {
        return None;
    };
    let mut of_label = said.filter(|(of, _)| **of == label);
    Some(of_label.next()?.1)
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
