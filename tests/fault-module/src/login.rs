//! Everything that checks or changes a PIN: the retry counter, the PIN pad, and the context-specific login.

use cryptoki_sys::*;

use crate::call::Call;
use crate::real;
use crate::rules::{Pin, TokenFault};

/// # Safety
/// `pin` must be null or valid for `pin_len` bytes.
pub(crate) unsafe fn login(
    call: &Call,
    _: impl FnOnce() -> CK_RV,
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
) -> CK_RV {
    let typed = call.token_faults().find_map(|fault| match fault {
        TokenFault::PinPad(pin) => Some(pin.as_bytes()),
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
            None if awaited => CKR_ARGUMENTS_BAD,
            // A null PIN is the real module's to judge.
            pin => real::login(session, user, pin),
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

pub(crate) fn init_token(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    _: CK_SLOT_ID,
    _: *mut CK_UTF8CHAR,
    _: CK_ULONG,
    _: *mut CK_UTF8CHAR,
) -> CK_RV {
    // The label as it was: the real one is another after the call.
    let old_label = call.label().unwrap_or_default();
    let rv = checked(call, Pin::So, forward);
    if rv == CKR_OK {
        call.state.pins.unlock(old_label, Pin::User);
    }
    rv
}

pub(crate) fn init_pin(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    _: CK_SESSION_HANDLE,
    _: *mut CK_UTF8CHAR,
    _: CK_ULONG,
) -> CK_RV {
    let rv = forward();
    if rv == CKR_OK {
        // The security officer's way to unlock the user's PIN.
        let label = call.label().unwrap_or_default();
        call.state.pins.unlock(label, Pin::User);
    }
    rv
}

/// # Safety
/// `new` must be null or valid for `new_len` bytes.
pub(crate) unsafe fn set_pin(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    session: CK_SESSION_HANDLE,
    _: *mut CK_UTF8CHAR,
    _: CK_ULONG,
    new: *mut CK_UTF8CHAR,
    new_len: CK_ULONG,
) -> CK_RV {
    let whose = if real::is_so_session(session) {
        Pin::So
    } else {
        Pin::User
    };
    let rv = checked(call, whose, forward);
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
    let tries = call.token_faults().find_map(|fault| match fault {
        TokenFault::PinTries(pin, tries) if *pin == whose => Some(*tries),
        _ => None,
    });
    match tries {
        None => check(),
        Some(tries) => {
            let label = call.label().unwrap_or_default();
            call.state.pins.attempt(label, whose, tries, check)
        }
    }
}

/// # Safety
/// `start` must be null or valid for `len` bytes, for the time of the call.
unsafe fn bytes<'a>(start: *mut CK_UTF8CHAR, len: CK_ULONG) -> Option<&'a [u8]> {
    // SAFETY: not null, so valid as the caller promises.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start, len as usize) })
}
