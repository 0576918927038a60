//! The parameters of the functions: handles and ids of slots are translated here, on the way in and on the way
//! out, and what a token or session tells of itself is changed on the way out.

use cryptoki_sys::*;

use crate::call::Call;
use crate::slots;
use crate::token;

/// The type of a parameter in the table of `module.rs`.
pub(crate) trait Arg {
    /// Its type in C.
    type Raw: Copy;

    /// Translates on the way in; `Err` refuses the call.
    ///
    /// # Safety
    /// A pointer must be null or as PKCS#11 demands it of the application.
    unsafe fn translate_in(raw: Self::Raw, _call: &mut Call) -> Result<Self::Raw, CK_RV> {
        Ok(raw)
    }

    /// Translates what the real module wrote, after a call that succeeded.
    ///
    /// # Safety
    /// As for `translate_in`.
    unsafe fn translate_out(_raw: Self::Raw, _call: &Call) {}
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

    unsafe fn translate_in(visible: CK_SLOT_ID, call: &mut Call) -> Result<CK_SLOT_ID, CK_RV> {
        Ok(real_slot(visible, call))
    }
}

fn real_slot(visible: CK_SLOT_ID, call: &mut Call) -> CK_SLOT_ID {
    let slot = slots::real_id(&call.rules, visible);
    call.slot = Some(slot);
    slot
}

/// A slot in a call that is about the token in it.
pub(crate) struct Token;

impl Arg for Token {
    type Raw = CK_SLOT_ID;

    unsafe fn translate_in(visible: CK_SLOT_ID, call: &mut Call) -> Result<CK_SLOT_ID, CK_RV> {
        let slot = real_slot(visible, call);
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

    unsafe fn translate_in(
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

    unsafe fn translate_in(
        visible: CK_OBJECT_HANDLE,
        call: &mut Call,
    ) -> Result<CK_OBJECT_HANDLE, CK_RV> {
        real_object(visible, call).ok_or(CKR_OBJECT_HANDLE_INVALID)
    }
}

/// An object that the call uses as a key.
pub(crate) struct Key;

impl Arg for Key {
    type Raw = CK_OBJECT_HANDLE;

    unsafe fn translate_in(
        visible: CK_OBJECT_HANDLE,
        call: &mut Call,
    ) -> Result<CK_OBJECT_HANDLE, CK_RV> {
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

/// A mechanism that the call uses.
pub(crate) struct Mechanism;

impl Arg for Mechanism {
    type Raw = *mut CK_MECHANISM;

    unsafe fn translate_in(
        mechanism: *mut CK_MECHANISM,
        call: &mut Call,
    ) -> Result<*mut CK_MECHANISM, CK_RV> {
        // SAFETY: as the caller promises.
        match unsafe { mechanism.as_ref() } {
            Some(wanted) if call.lacks_mechanism(wanted.mechanism) => Err(CKR_MECHANISM_INVALID),
            _ => Ok(mechanism),
        }
    }
}

/// A mechanism that the call asks about.
pub(crate) struct MechanismType;

impl Arg for MechanismType {
    type Raw = CK_MECHANISM_TYPE;

    unsafe fn translate_in(
        mechanism: CK_MECHANISM_TYPE,
        call: &mut Call,
    ) -> Result<CK_MECHANISM_TYPE, CK_RV> {
        if call.lacks_mechanism(mechanism) {
            Err(CKR_MECHANISM_INVALID)
        } else {
            Ok(mechanism)
        }
    }
}

/// Declares a parameter that points to what the call writes, with what is changed in that.
macro_rules! written {
    ($($(#[$doc:meta])* $arg:ident: $type:ty, $change:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $arg;

        impl Arg for $arg {
            type Raw = *mut $type;

            unsafe fn translate_out(written: *mut $type, call: &Call) {
                let change: fn(&mut $type, &Call) = $change;
                // SAFETY: null, or valid and written, as the caller promises.
                if let Some(written) = unsafe { written.as_mut() } {
                    change(written, call);
                }
            }
        }
    )*};
}

written! {
    /// The id of a slot.
    NewSlot: CK_SLOT_ID, |slot, call| *slot = slots::visible_id(&call.rules, *slot);
    /// The handle of a new object.
    NewObject: CK_OBJECT_HANDLE, |handle, call| *handle += call.state.object_offset();
    /// A count of what was or would be written, or its length.
    Count: CK_ULONG, |count, call| *count = call.count.unwrap_or(*count);
    /// What a slot tells of itself.
    SlotInfo: CK_SLOT_INFO, |info, call| if call.is_hidden() {
        info.flags &= !CKF_TOKEN_PRESENT;
    };
    /// What a token tells of itself.
    TokenInfo: CK_TOKEN_INFO, token::change_info;
    /// What a session tells of itself.
    SessionInfo: CK_SESSION_INFO, |info, call| info.slotID = slots::visible_id(&call.rules, info.slotID);
}
