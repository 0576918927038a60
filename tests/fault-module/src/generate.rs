//! `C_GenerateKeyPair`: templates in which a module demands more than the real one, or refuses what that takes.

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
    // SAFETY: as the caller promises.
    let (mut public, mut private) = unsafe {
        (
            template(public, public_count),
            template(private, private_count),
        )
    };
    for fault in call.token_faults() {
        match fault {
            TokenFault::DemandsInPrivateTemplate(demand) => {
                let before = private.len();
                private.retain(|attribute| attribute.type_ != *demand);
                if private.len() == before {
                    return CKR_TEMPLATE_INCONSISTENT;
                }
            }
            TokenFault::RefusesInTemplate(refused, rv)
                if public
                    .iter()
                    .chain(&private)
                    .any(|given| given.type_ == *refused) =>
            {
                return *rv;
            }
            TokenFault::WantsCurveByOid(rv) => {
                let given = public.iter_mut().chain(&mut private);
                for params in given.filter(|given| given.type_ == CKA_EC_PARAMS) {
                    // SAFETY: as the caller promises.
                    if unsafe { bytes(params) } != ID_ED25519 {
                        return *rv;
                    }
                    params.pValue = EDWARDS25519.as_ptr().cast_mut().cast();
                    params.ulValueLen = EDWARDS25519.len() as CK_ULONG;
                }
            }
            _ => {}
        }
    }
    let (public_count, private_count) = (public.len() as CK_ULONG, private.len() as CK_ULONG);
    // SAFETY: as the caller promises; the templates are copies that outlive the call.
    unsafe {
        call_real!(C_GenerateKeyPair(
            session,
            mechanism,
            public.as_mut_ptr(),
            public_count,
            private.as_mut_ptr(),
            private_count,
            public_key,
            private_key,
        ))
    }
}

/// id-Ed25519 (RFC 8410), and the name that SoftHSM takes, in DER.
const ID_ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const EDWARDS25519: &[u8] = b"\x13\x0cedwards25519";

/// # Safety
/// `template` must be null or valid for `count` attributes.
unsafe fn template(template: *mut CK_ATTRIBUTE, count: CK_ULONG) -> Vec<CK_ATTRIBUTE> {
    match template.is_null() {
        true => Vec::new(),
        // SAFETY: not null, so valid as the caller promises.
        false => unsafe { std::slice::from_raw_parts(template, count as usize) }.to_vec(),
    }
}

/// # Safety
/// The attribute's value must be null or valid for its length.
unsafe fn bytes(attribute: &CK_ATTRIBUTE) -> &[u8] {
    match attribute.pValue.is_null() {
        true => &[],
        // SAFETY: not null, so valid as the caller promises.
        false => unsafe {
            std::slice::from_raw_parts(attribute.pValue.cast(), attribute.ulValueLen as usize)
        },
    }
}
