//! Everything that checks or changes a PIN: the retry counter, the pinpad, and the context-specific login.

use cryptoki_sys::*;

use crate::call::Call;
use crate::module::forward;
use crate::real;
use crate::rules::{Pin, Rule};

/// # Safety
/// As PKCS#11 demands for `C_Login`.
pub(crate) unsafe fn login(
    call: &Call,
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
) -> CK_RV {
    let typed = call.rules.iter().find_map(|rule| match rule {
        Rule::Pinpad { pin, token } if call.is_about(token) => Some(pin.as_bytes()),
        _ => None,
    });
    let pin = match typed {
        Some(_) if !pin.is_null() => return CKR_ARGUMENTS_BAD,
        Some(typed) => Some(typed),
        // SAFETY: as the caller promises.
        None => unsafe { bytes(pin, pin_len) },
    };
    let whose = if user == CKU_SO { Pin::So } else { Pin::User };
    checked(call, whose, || {
        let awaited = user == CKU_CONTEXT_SPECIFIC && call.awaits_login(session);
        let rv = match pin {
            Some(pin) if awaited => check_learnt(call, pin),
            // SAFETY: the real module only reads the PIN.
            Some(pin) => unsafe {
                forward::C_Login(
                    session,
                    user,
                    pin.as_ptr().cast_mut(),
                    pin.len() as CK_ULONG,
                )
            },
            None if awaited => CKR_ARGUMENTS_BAD,
            // SAFETY: a null PIN is the real module's to judge.
            None => unsafe { forward::C_Login(session, user, std::ptr::null_mut(), pin_len) },
        };
        match (rv, call.slot, pin) {
            (CKR_OK, ..) if awaited => call.state.sessions.set_awaits_login(session, false),
            (CKR_OK, Some(slot), Some(pin)) if user == CKU_USER => call.state.pins.learn(slot, pin),
            _ => {}
        }
        rv
    })
}

fn check_learnt(call: &Call, pin: &[u8]) -> CK_RV {
    match call.slot {
        Some(slot) if call.state.pins.is_learnt(slot, pin) => CKR_OK,
        _ => CKR_PIN_INCORRECT,
    }
}

/// # Safety
/// As PKCS#11 demands for `C_InitToken`.
pub(crate) unsafe fn init_token(
    call: &Call,
    slot: CK_SLOT_ID,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
    label: *mut CK_UTF8CHAR,
) -> CK_RV {
    // The label as it was: the real one is another after the call.
    let old_label = call.label().unwrap_or_default();
    // SAFETY: as the caller promises.
    let rv = checked(call, Pin::So, || unsafe {
        forward::C_InitToken(slot, pin, pin_len, label)
    });
    if rv == CKR_OK {
        call.state.pins.unlock(old_label, Pin::User);
    }
    rv
}

/// # Safety
/// As PKCS#11 demands for `C_InitPIN`.
pub(crate) unsafe fn init_pin(
    call: &Call,
    session: CK_SESSION_HANDLE,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
) -> CK_RV {
    // SAFETY: as the caller promises.
    let rv = unsafe { forward::C_InitPIN(session, pin, pin_len) };
    if rv == CKR_OK {
        // The security officer's way to unlock the user's PIN.
        call.state
            .pins
            .unlock(call.label().unwrap_or_default(), Pin::User);
    }
    rv
}

/// # Safety
/// As PKCS#11 demands for `C_SetPIN`.
pub(crate) unsafe fn set_pin(
    call: &Call,
    session: CK_SESSION_HANDLE,
    old: *mut CK_UTF8CHAR,
    old_len: CK_ULONG,
    new: *mut CK_UTF8CHAR,
    new_len: CK_ULONG,
) -> CK_RV {
    let whose = if real::is_so_session(session) {
        Pin::So
    } else {
        Pin::User
    };
    // SAFETY: as the caller promises.
    let rv = checked(call, whose, || unsafe {
        forward::C_SetPIN(session, old, old_len, new, new_len)
    });
    // SAFETY: as the caller promises.
    if let (CKR_OK, Pin::User, Some(slot), Some(new)) =
        (rv, whose, call.slot, unsafe { bytes(new, new_len) })
    {
        call.state.pins.learn(slot, new);
    }
    rv
}

/// Lets `check` check a PIN if the retry counter allows it, and counts the result.
fn checked(call: &Call, whose: Pin, check: impl FnOnce() -> CK_RV) -> CK_RV {
    let rules = &call.rules;
    if !rules
        .iter()
        .any(|rule| matches!(rule, Rule::PinTries { .. }))
    {
        return check();
    }
    let label = call.label().unwrap_or_default();
    match call.state.pins.attempt(rules, label, whose) {
        Err(locked) => locked,
        Ok(attempt) => {
            let rv = check();
            attempt.settle(rules, rv);
            rv
        }
    }
}

/// # Safety
/// `start` must be null or valid for `len` bytes, for the time of the call.
unsafe fn bytes<'a>(start: *mut CK_UTF8CHAR, len: CK_ULONG) -> Option<&'a [u8]> {
    // SAFETY: not null, so valid as the caller promises.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start, len as usize) })
}
