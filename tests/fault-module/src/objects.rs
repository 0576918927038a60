//! `C_FindObjects`: found objects get their visible handles, and a search may never end.

use cryptoki_sys::*;

use crate::call::Call;
use crate::rules::TokenFault;

/// # Safety
/// `objects` must be null or valid for `max` handles, and `count` null or valid.
pub(crate) unsafe fn find(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    session: CK_SESSION_HANDLE,
    objects: *mut CK_OBJECT_HANDLE,
    max: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    let rv = forward();
    if rv != CKR_OK || objects.is_null() {
        return rv;
    }
    // SAFETY: as the caller promises; the call succeeded, so the first `count` handles are written.
    let (found, count) = unsafe {
        let found = std::slice::from_raw_parts_mut(objects, *count as usize);
        (found, &mut *count)
    };
    for handle in &mut *found {
        *handle += call.state.object_offset();
    }
    let endless = call
        .token_faults()
        .any(|fault| *fault == TokenFault::EndlessSearch);
    if endless && let Some(last) = call.state.sessions.found(session, found) {
        for place in *count..max {
            // SAFETY: there are `max` places.
            unsafe { objects.add(place as usize).write(last) };
        }
        *count = max;
    }
    CKR_OK
}
