//! The parameters of the functions: what the application passes goes in, what the real module may see comes
//! out, and the other way round after the call. Handles and ids of slots are translated here and nowhere else.

use cryptoki_sys::*;

use crate::call::Call;
use crate::rules::Rule;
use crate::slots;

/// The type of a parameter in the table of `module.rs`.
pub(crate) trait Arg {
    /// Its type in C.
    type Raw: Copy;

    /// Translates on the way in; `Err` refuses the call.
    ///
    /// # Safety
    /// A pointer must be null or as PKCS#11 demands it of the application.
    unsafe fn enter(raw: Self::Raw, _call: &mut Call) -> Result<Self::Raw, CK_RV> {
        Ok(raw)
    }

    /// Translates what the real module wrote, after a call that succeeded.
    ///
    /// # Safety
    /// As for `enter`.
    unsafe fn leave(_raw: Self::Raw, _call: &Call) {}
}

impl Arg for CK_ULONG {
    type Raw = Self;
}

impl Arg for CK_BBOOL {
    type Raw = Self;
}

impl Arg for CK_NOTIFY {
    type Raw = Self;
}

impl<T> Arg for *mut T {
    type Raw = Self;
}

/// A slot, by its visible id.
pub(crate) struct Slot;

impl Arg for Slot {
    type Raw = CK_SLOT_ID;

    unsafe fn enter(visible: CK_SLOT_ID, call: &mut Call) -> Result<CK_SLOT_ID, CK_RV> {
        let slot = slots::real_id(&call.rules, visible);
        call.slot = Some(slot);
        Ok(slot)
    }
}

/// A slot in a call that is about the token in it.
pub(crate) struct Token;

impl Arg for Token {
    type Raw = CK_SLOT_ID;

    unsafe fn enter(visible: CK_SLOT_ID, call: &mut Call) -> Result<CK_SLOT_ID, CK_RV> {
        // SAFETY: an id is no pointer.
        let slot = unsafe { Slot::enter(visible, call) }?;
        if call.is_hidden() {
            Err(CKR_TOKEN_NOT_PRESENT)
        } else {
            Ok(slot)
        }
    }
}

/// A session.
pub(crate) struct Session;

impl Arg for Session {
    type Raw = CK_SESSION_HANDLE;

    unsafe fn enter(
        handle: CK_SESSION_HANDLE,
        call: &mut Call,
    ) -> Result<CK_SESSION_HANDLE, CK_RV> {
        if let Some(session) = call.state.sessions.get(handle) {
            call.slot = Some(session.slot);
            if session.removed {
                let hidden = call.is_hidden();
                return Err(if hidden {
                    CKR_DEVICE_REMOVED
                } else {
                    CKR_SESSION_HANDLE_INVALID
                });
            }
        }
        Ok(handle)
    }
}

/// An object, by its visible handle.
pub(crate) struct Object;

impl Arg for Object {
    type Raw = CK_OBJECT_HANDLE;

    unsafe fn enter(visible: CK_OBJECT_HANDLE, call: &mut Call) -> Result<CK_OBJECT_HANDLE, CK_RV> {
        real_object(visible, call).ok_or(CKR_OBJECT_HANDLE_INVALID)
    }
}

/// An object that the call uses as a key.
pub(crate) struct Key;

impl Arg for Key {
    type Raw = CK_OBJECT_HANDLE;

    unsafe fn enter(visible: CK_OBJECT_HANDLE, call: &mut Call) -> Result<CK_OBJECT_HANDLE, CK_RV> {
        real_object(visible, call).ok_or(CKR_KEY_HANDLE_INVALID)
    }
}

fn real_object(visible: CK_OBJECT_HANDLE, call: &Call) -> Option<CK_OBJECT_HANDLE> {
    match visible {
        // Some functions take it for "no object".
        CK_INVALID_HANDLE => Some(CK_INVALID_HANDLE),
        visible => visible
            .checked_sub(call.state.object_offset())
            .filter(|real| *real != CK_INVALID_HANDLE),
    }
}

/// Where the handle of a new object is written.
pub(crate) struct NewObject;

impl Arg for NewObject {
    type Raw = *mut CK_OBJECT_HANDLE;

    unsafe fn leave(handle: *mut CK_OBJECT_HANDLE, call: &Call) {
        // SAFETY: as the caller promises.
        if let Some(handle) = unsafe { handle.as_mut() } {
            *handle += call.state.object_offset();
        }
    }
}

/// A mechanism that the call uses.
pub(crate) struct Mechanism;

impl Arg for Mechanism {
    type Raw = *mut CK_MECHANISM;

    unsafe fn enter(
        mechanism: *mut CK_MECHANISM,
        call: &mut Call,
    ) -> Result<*mut CK_MECHANISM, CK_RV> {
        // SAFETY: as the caller promises.
        match unsafe { mechanism.as_ref() } {
            Some(wanted) if is_stripped(call, wanted.mechanism) => Err(CKR_MECHANISM_INVALID),
            _ => Ok(mechanism),
        }
    }
}

/// Whether a rule takes the mechanism from the token that the call is about.
pub(crate) fn is_stripped(call: &Call, mechanism: CK_MECHANISM_TYPE) -> bool {
    call.rules.iter().any(|rule| {
        matches!(rule, Rule::StripMechanisms { mechanisms, token }
            if mechanisms.contains(&mechanism) && call.is_about(token))
    })
}
