//! What a token says of itself: the flags and limits of `CK_TOKEN_INFO`, and its mechanisms.

use cryptoki_sys::*;

use crate::args::is_stripped;
use crate::call::Call;
use crate::module::forward;
use crate::real;
use crate::rules::Rule;
use crate::slots::write_list;

/// # Safety
/// As PKCS#11 demands for `C_GetTokenInfo`.
pub(crate) unsafe fn info(call: &Call, slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    // SAFETY: as the caller promises.
    let rv = unsafe { forward::C_GetTokenInfo(slot, info) };
    // SAFETY: the application passed a pointer that is null or valid.
    if let (CKR_OK, Some(info)) = (rv, unsafe { info.as_mut() }) {
        adjust(call, info);
    }
    rv
}

fn adjust(call: &Call, info: &mut CK_TOKEN_INFO) {
    for rule in call.rules.iter() {
        match rule {
            Rule::SessionLimit { max, token } if call.is_about(token) => {
                info.ulMaxSessionCount = (*max).into();
                info.ulMaxRwSessionCount = (*max).into();
            }
            Rule::Pinpad { token, .. } if call.is_about(token) => {
                info.flags |= CKF_PROTECTED_AUTHENTICATION_PATH
            }
            Rule::NoLogin { token } if call.is_about(token) => info.flags &= !CKF_LOGIN_REQUIRED,
            Rule::Uninitialized { token } if call.is_about(token) => {
                info.flags &= !(CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED)
            }
            Rule::PinTries { token, .. } if call.is_about(token) => {
                let label = call.label().unwrap_or_default();
                call.state
                    .pins
                    .set_flags(&call.rules, label, &mut info.flags);
            }
            _ => {}
        }
    }
}

/// # Safety
/// As PKCS#11 demands for `C_GetMechanismList`.
pub(crate) unsafe fn mechanism_list(
    call: &Call,
    slot: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    count: *mut CK_ULONG,
) -> CK_RV {
    let stripped = |rule| matches!(rule, &Rule::StripMechanisms { .. });
    if count.is_null() || !call.rules.iter().any(stripped) {
        // SAFETY: as the caller promises.
        return unsafe { forward::C_GetMechanismList(slot, list, count) };
    }
    match real::mechanisms(slot) {
        Ok(mut mechanisms) => {
            mechanisms.retain(|mechanism| !is_stripped(call, *mechanism));
            // SAFETY: as the caller promises.
            unsafe { write_list(&mechanisms, list, count) }
        }
        Err(rv) => rv,
    }
}

/// # Safety
/// As PKCS#11 demands for `C_GetMechanismInfo`.
pub(crate) unsafe fn mechanism_info(
    call: &Call,
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    if is_stripped(call, mechanism) {
        return CKR_MECHANISM_INVALID;
    }
    // SAFETY: as the caller promises.
    unsafe { forward::C_GetMechanismInfo(slot, mechanism, info) }
}
