//! What a token says of itself: the flags and limits of `CK_TOKEN_INFO`, and its mechanisms.

use cryptoki_sys::*;

use crate::call::Call;
use crate::real;
use crate::rules::TokenFault;
use crate::slots::write_list;

/// Changes what `C_GetTokenInfo` has written.
pub(crate) fn change_info(info: &mut CK_TOKEN_INFO, call: &Call) {
    for fault in call.token_faults() {
        match fault {
            TokenFault::SessionLimit(max) => {
                info.ulMaxSessionCount = (*max).into();
                info.ulMaxRwSessionCount = (*max).into();
            }
            TokenFault::PinPad(_) => info.flags |= CKF_PROTECTED_AUTHENTICATION_PATH,
            TokenFault::Flags { set, clear } => info.flags = (info.flags | set) & !clear,
            TokenFault::Tells(label, serial) => {
                pad(&mut info.label, label);
                pad(&mut info.serialNumber, serial);
            }
            TokenFault::PinTries(pin, tries) => {
                let label = call.label().unwrap_or_default();
                info.flags = call.state.pins.flags(label, *pin, *tries, info.flags);
            }
            _ => {}
        }
    }
}

/// A text as the structures have it (PKCS#11 2.40, 3).
fn pad(field: &mut [u8], text: &str) {
    field.fill(b' ');
    for (place, byte) in field.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
}

/// # Safety
/// `count` must be null or valid, and `list` null or valid for `*count` numbers.
pub(crate) unsafe fn mechanism_list(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    slot: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    count: *mut CK_ULONG,
) -> CK_RV {
    let is_other = |fault: &TokenFault| {
        matches!(
            fault,
            TokenFault::WithoutMechanisms(_) | TokenFault::Unlisted(_)
        )
    };
    if count.is_null() || !call.token_faults().any(is_other) {
        return forward();
    }
    match real::mechanisms(slot) {
        Ok(mut mechanisms) => {
            mechanisms.retain(|mechanism| {
                let unlisted = TokenFault::Unlisted(*mechanism);
                !call.lacks_mechanism(*mechanism) && !call.token_faults().any(|is| *is == unlisted)
            });
            // SAFETY: as the caller promises.
            unsafe { write_list(&mechanisms, list, count) }
        }
        Err(rv) => rv,
    }
}
