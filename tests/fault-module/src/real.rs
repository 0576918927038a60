//! The wrapped module: what the faults themselves ask of it, or do to it. These calls are not counted, and no
//! rule is about them.

use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::OnceLock;

use cryptoki_sys::*;

use crate::error::Error;

/// Loads the wrapped module, for the life of the process.
pub(crate) fn load(path: &Path) -> Result<(), Error> {
    // SAFETY: the test named a PKCS#11 module; loading it runs its initialisers and nothing else.
    let library = unsafe { Pkcs11::new(path) }.map_err(|error| Error::Module {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let mut list = std::ptr::null_mut();
    let rv = match &library.C_GetFunctionList {
        // SAFETY: the symbol is the function of PKCS#11 with that name, and `list` outlives the call.
        Ok(function) => unsafe { function(&mut list) },
        Err(_) => CKR_FUNCTION_NOT_SUPPORTED,
    };
    if rv != CKR_OK || list.is_null() {
        let path = path.to_owned();
        return Err(Error::FunctionList { path, rv });
    }
    // SAFETY: PKCS#11 makes the pointer valid while the library is loaded.
    FUNCTIONS.get_or_init(|| unsafe { *list });
    // Never unloaded: the functions copied above lie in it.
    std::mem::forget(library);
    Ok(())
}

/// The functions of the wrapped module, once it is loaded.
pub(crate) fn functions() -> Option<&'static CK_FUNCTION_LIST> {
    FUNCTIONS.get()
}

static FUNCTIONS: OnceLock<CK_FUNCTION_LIST> = OnceLock::new();

/// Calls a function of the wrapped module: `call_real!(C_Logout(session))`. Unsafe as that function is.
macro_rules! call_real {
    ($name:ident($($arg:expr),* $(,)?)) => {
        match $crate::real::functions().and_then(|list| list.$name) {
            Some(function) => function($($arg),*),
            None => CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}
pub(crate) use call_real;

/// More slots than any test has; a fixed buffer spares the size query, with which SoftHSM adds a slot.
const MAX_SLOTS: usize = 256;

/// The ids of the slots.
pub(crate) fn slots(token_present: bool) -> Vec<CK_SLOT_ID> {
    let mut slots = vec![0; MAX_SLOTS];
    let mut count = MAX_SLOTS as CK_ULONG;
    // SAFETY: the buffer has `count` places.
    let rv = unsafe {
        call_real!(C_GetSlotList(
            token_present.into(),
            slots.as_mut_ptr(),
            &mut count
        ))
    };
    slots.truncate(if rv == CKR_OK { count as usize } else { 0 });
    slots
}

/// The result of the query for the number of slots.
pub(crate) fn count_slots(token_present: CK_BBOOL) -> CK_RV {
    let mut count = 0;
    // SAFETY: a null list asks for the count alone.
    unsafe {
        call_real!(C_GetSlotList(
            token_present,
            std::ptr::null_mut(),
            &mut count
        ))
    }
}

/// The label of the token in a slot, without its padding.
pub(crate) fn label(slot: CK_SLOT_ID) -> Option<String> {
    let mut info = MaybeUninit::<CK_TOKEN_INFO>::zeroed();
    // SAFETY: the pointer is valid for a CK_TOKEN_INFO.
    let rv = unsafe { call_real!(C_GetTokenInfo(slot, info.as_mut_ptr())) };
    if rv != CKR_OK {
        return None;
    }
    // SAFETY: all zeroes is a CK_TOKEN_INFO, and so is what the call made of it.
    let info = unsafe { info.assume_init() };
    let label = String::from_utf8_lossy(&info.label);
    Some(label.trim_end_matches([' ', '\0']).to_owned())
}

/// The mechanisms of the token in a slot.
pub(crate) fn mechanisms(slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>, CK_RV> {
    let mut count = 0;
    // SAFETY: a null list asks for the count alone.
    let rv = unsafe { call_real!(C_GetMechanismList(slot, std::ptr::null_mut(), &mut count)) };
    if rv != CKR_OK {
        return Err(rv);
    }
    let mut mechanisms = vec![0; count as usize];
    // SAFETY: the buffer has `count` places.
    let rv = unsafe {
        call_real!(C_GetMechanismList(
            slot,
            mechanisms.as_mut_ptr(),
            &mut count
        ))
    };
    mechanisms.truncate(count as usize);
    if rv == CKR_OK {
        Ok(mechanisms)
    } else {
        Err(rv)
    }
}

/// Whether the security officer is logged in where this session is.
pub(crate) fn is_so_session(session: CK_SESSION_HANDLE) -> bool {
    let mut info = MaybeUninit::<CK_SESSION_INFO>::zeroed();
    // SAFETY: the pointer is valid for a CK_SESSION_INFO, which all zeroes is.
    unsafe {
        call_real!(C_GetSessionInfo(session, info.as_mut_ptr())) == CKR_OK
            && info.assume_init().state == CKS_RW_SO_FUNCTIONS
    }
}

/// The class and label of an object that the session may see.
pub(crate) fn class_and_label(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
) -> Option<(CK_OBJECT_CLASS, String)> {
    let mut class: CK_OBJECT_CLASS = 0;
    let mut label = [0u8; 256];
    let mut template = [
        CK_ATTRIBUTE {
            type_: CKA_CLASS,
            pValue: (&raw mut class).cast(),
            ulValueLen: size_of_val(&class) as CK_ULONG,
        },
        CK_ATTRIBUTE {
            type_: CKA_LABEL,
            pValue: label.as_mut_ptr().cast(),
            ulValueLen: label.len() as CK_ULONG,
        },
    ];
    let count = template.len() as CK_ULONG;
    // SAFETY: each attribute points to a buffer of its length that outlives the call.
    let rv = unsafe {
        call_real!(C_GetAttributeValue(
            session,
            object,
            template.as_mut_ptr(),
            count
        ))
    };
    let [_, CK_ATTRIBUTE { ulValueLen, .. }] = template;
    let label = label.get(..ulValueLen as usize)?;
    (rv == CKR_OK).then(|| (class, String::from_utf8_lossy(label).into_owned()))
}

/// Logs in; without a PIN by a null pointer.
pub(crate) fn login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: Option<&[u8]>) -> CK_RV {
    let (pin, length) = pin.map_or((std::ptr::null(), 0), |pin| (pin.as_ptr(), pin.len()));
    // SAFETY: null, or valid for its length; modules only read it.
    unsafe { call_real!(C_Login(session, user, pin.cast_mut(), length as CK_ULONG)) }
}

/// Ends the signature that was begun in a session: a `C_Sign` that succeeds or fails does (PKCS#11 2.40, 5.11).
pub(crate) fn end_signing(session: CK_SESSION_HANDLE) {
    // As long as the longest signature (RSA with 16,384 bits).
    let (mut data, mut signature) = ([0; 32], [0; 2048]);
    let mut length = signature.len() as CK_ULONG;
    // SAFETY: each buffer is valid for the length that is passed with it.
    unsafe {
        call_real!(C_Sign(
            session,
            data.as_mut_ptr(),
            data.len() as CK_ULONG,
            signature.as_mut_ptr(),
            &mut length,
        ))
    };
}

/// Closes a session that the application does not know.
pub(crate) fn close_session(session: CK_SESSION_HANDLE) {
    // SAFETY: no pointers are passed.
    unsafe { call_real!(C_CloseSession(session)) };
}

/// Closes the sessions of a slot, and with them the login.
pub(crate) fn close_all_sessions(slot: CK_SLOT_ID) {
    // SAFETY: no pointers are passed. A slot without sessions is as good as one that had some.
    unsafe { call_real!(C_CloseAllSessions(slot)) };
}

/// Logs out of the token of this session.
pub(crate) fn log_out(session: CK_SESSION_HANDLE) {
    // SAFETY: no pointers are passed. A token where nobody is logged in stays as it is.
    unsafe { call_real!(C_Logout(session)) };
}
