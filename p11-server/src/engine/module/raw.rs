//! `C_SignInit` and `C_Sign`, one call each: the only unsafe code of the server.
//!
//! cryptoki's `Session::sign` asks for the length of the signature first, which costs a third call,
//! and leaves no room for a context-specific login between the two. These functions are those of the
//! same loaded library, so sessions and handles of cryptoki are theirs too.
//!
//! That does not hold for p11-kit's own modules (`p11-kit-proxy.so`, `p11-kit-client.so`): each
//! `C_GetFunctionList` makes an instance that knows nothing of the others', and cryptoki does not
//! give its own away. They are told by this, and left to `Session::sign`.
#![allow(unsafe_code)]

use std::path::Path;

use cryptoki::context::Function;
use cryptoki::error::{Error, Result, Rv, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki_sys::{CK_C_Sign, CK_C_SignInit, CK_FUNCTION_LIST, CK_MECHANISM, CK_ULONG};

/// No signature of a key that we know is longer.
const LONGEST: usize = 64 * 1024;

/// The two functions of a module that sign.
pub struct Raw {
    sign_init: CK_C_SignInit,
    sign: CK_C_Sign,
    // The functions live as long as the library stays loaded.
    _library: cryptoki_sys::Pkcs11,
}

impl Raw {
    /// Takes the functions from the module that cryptoki has already loaded from this path; none
    /// from a module that would give others than cryptoki's.
    pub fn load(path: &Path) -> Result<Option<Raw>> {
        // SAFETY: loading runs the module's initialisers, as cryptoki's own load of it just did.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) }.map_err(Error::LibraryLoading)?;
        if library.C_GetFunctionList.is_err() {
            return Err(Error::MissingSymbol("C_GetFunctionList"));
        }
        let mut lists: [*mut CK_FUNCTION_LIST; 2] = [std::ptr::null_mut(); 2];
        for list in &mut lists {
            // SAFETY: C_GetFunctionList (PKCS#11 section 5.4) stores a pointer.
            let rv = unsafe { library.C_GetFunctionList(list) };
            Rv::from(rv).into_result(Function::GetFunctionList)?;
        }
        let [list, again] = lists;
        // SAFETY: after CKR_OK the pointer is null or stays valid while the library is loaded.
        let functions = unsafe { list.as_ref() }.ok_or(Error::NullFunctionPointer)?;
        Ok((list == again).then_some(Raw {
            sign_init: functions.C_SignInit,
            sign: functions.C_Sign,
            _library: library,
        }))
    }

    /// `C_SignInit` (PKCS#11 section 5.13.1).
    pub fn sign_init(&self, session: &Session, how: &Mechanism, key: ObjectHandle) -> Result<()> {
        let function = self.sign_init.ok_or(Error::NullFunctionPointer)?;
        let mut mechanism = CK_MECHANISM::from(how);
        // SAFETY: the mechanism and the parameters it points to, inside `how`, outlive the call.
        let rv = unsafe { function(session.handle(), &mut mechanism, key.handle()) };
        Rv::from(rv).into_result(Function::SignInit)
    }

    /// `C_Sign` (section 5.13.2) into a buffer of `expected` bytes, in one call where that is enough.
    pub fn sign(&self, session: &Session, data: &[u8], expected: usize) -> Result<Vec<u8>> {
        let function = self.sign.ok_or(Error::NullFunctionPointer)?;
        let mut signature = vec![0; expected];
        loop {
            let mut length = signature.len() as CK_ULONG;
            // SAFETY: both buffers have the lengths that are passed with them; the module only
            // reads the data, its pointer is not const for historic reasons.
            let rv = unsafe {
                function(
                    session.handle(),
                    data.as_ptr().cast_mut(),
                    data.len() as CK_ULONG,
                    signature.as_mut_ptr(),
                    &mut length,
                )
            };
            let length = usize::try_from(length)?;
            match Rv::from(rv) {
                // The operation is still active and the module has said what it needs.
                Rv::Error(RvError::BufferTooSmall)
                    if length > signature.len() && length <= LONGEST =>
                {
                    signature.resize(length, 0);
                }
                rv => {
                    rv.into_result(Function::Sign)?;
                    signature.truncate(length);
                    return Ok(signature);
                }
            }
        }
    }
}
