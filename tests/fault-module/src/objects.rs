//! `C_FindObjects`: found objects get their visible handles.

use cryptoki_sys::*;

use crate::call::Call;
use crate::module::forward;

/// # Safety
/// As PKCS#11 demands for `C_FindObjects`.
pub(crate) unsafe fn find(
    call: &Call,
    session: CK_SESSION_HANDLE,
    objects: *mut CK_OBJECT_HANDLE,
    max: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    // SAFETY: as the caller promises.
    let rv = unsafe { forward::C_FindObjects(session, objects, max, count) };
    if rv == CKR_OK && !objects.is_null() {
        // SAFETY: the call succeeded, so it wrote `count` handles.
        let found = unsafe { std::slice::from_raw_parts_mut(objects, *count as usize) };
        for handle in found {
            *handle += call.state.object_offset();
        }
    }
    rv
}
