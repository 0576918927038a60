//! `C_GenerateKeyPair`: private templates in which a module demands more than the real one.

use cryptoki_sys::*;

use crate::call::Call;
use crate::real::call_real;
use crate::rules::TokenFault;

/// # Safety
/// As PKCS#11 demands for `C_GenerateKeyPair`.
#[allow(clippy::too_many_arguments, reason = "the parameters of the standard")]
pub(crate) unsafe fn key_pair(
    call: &Call,
    _: impl FnOnce() -> CK_RV,
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    public: *mut CK_ATTRIBUTE,
    public_count: CK_ULONG,
    private: *mut CK_ATTRIBUTE,
    private_count: CK_ULONG,
    public_key: *mut CK_OBJECT_HANDLE,
    private_key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    let mut demanded = call.token_faults().filter_map(|fault| match fault {
        TokenFault::DemandsInPrivateTemplate(attribute) => Some(*attribute),
        _ => None,
    });
    let mut template = match private.is_null() {
        true => Vec::new(),
        // SAFETY: not null, so valid as the caller promises.
        false => unsafe { std::slice::from_raw_parts(private, private_count as usize) }.to_vec(),
    };
    let missing = demanded.any(|demand| {
        let before = template.len();
        template.retain(|attribute| attribute.type_ != demand);
        template.len() == before
    });
    if missing {
        return CKR_TEMPLATE_INCONSISTENT;
    }
    let count = template.len() as CK_ULONG;
    // SAFETY: as the caller promises; the private template is a copy that outlives the call.
    unsafe {
        call_real!(C_GenerateKeyPair(
            session,
            mechanism,
            public,
            public_count,
            template.as_mut_ptr(),
            count,
            public_key,
            private_key,
        ))
    }
}
