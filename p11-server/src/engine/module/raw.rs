//! The few functions that cryptoki gets wrong, hides or doubles: the only unsafe code of the server.
//!
//! | function | why not cryptoki's |
//! |---|---|
//! | `C_Initialize` | cryptoki passes no NULL and no text, which some modules want |
//! | `C_GetTokenInfo` | cryptoki refuses the whole for a clock that is none or an unknown flag |
//! | `C_GetSlotList`, `C_GetMechanismList`, `C_FindObjects` | cryptoki believes any count |
//! | `C_GetAttributeValue` | cryptoki believes the lengths that a module writes back, and asks twice |
//! | `C_SignInit`, `C_Sign` | cryptoki asks for the length first, a third call, and leaves no room for a login between |
//! | `pthread_atfork` | no crate offers it |
//!
//! These functions are those of the library that cryptoki has loaded, so sessions and handles are good for
//! both. That does not hold for p11-kit's own modules (`p11-kit-proxy.so`, `p11-kit-client.so`): each
//! `C_GetFunctionList` makes an instance that knows nothing of the others', and cryptoki does not give
//! its own away. They are told by this, and left to cryptoki.
#![allow(unsafe_code)]
use std::ffi::{CStr, c_void};
use std::path::Path;
use std::ptr::null_mut;

use cryptoki::context::Function;
use cryptoki::error::{Error, Result, Rv, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;
use cryptoki_sys::*;

use super::list::list;

/// No signature of a key that we know is longer, nor any attribute that we read.
const LONGEST: usize = 64 * 1024;
/// Handles that `C_FindObjects` is asked for at once.
const HANDLES: usize = 64;

/// What tells a loaded library from others: where its `C_GetFunctionList` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(usize);

/// The functions of a module that we call ourselves.
pub(crate) struct Raw {
    functions: CK_FUNCTION_LIST,
    // The functions live as long as the library stays loaded.
    _library: Pkcs11,
}

/// What `C_Initialize` is given. NSS takes its text where the standard has `pReserved`, and has that behind it.
#[repr(C)]
struct InitializeArguments {
    standard: CK_C_INITIALIZE_ARGS,
    reserved_by_nss: *mut c_void,
}

/// Calls a function of the list.
macro_rules! call {
    ($raw:expr, $function:ident ($($argument:expr),* $(,)?)) => {{
        let function = $raw.functions.$function.ok_or(Error::NullFunctionPointer)?;
        // SAFETY: the pointers point to values that outlive the call, and each buffer has the length that is
        // passed with it. Where the module only reads, its pointers are not const for historic reasons.
        Rv::from(unsafe { function($($argument),*) })
    }};
}

impl Raw {
    /// Which module cryptoki will load from this path, and its functions, if it gives the same again.
    pub fn load(path: &Path) -> Result<(Entry, Option<Raw>)> {
        // SAFETY: loading runs the module's initialisers, as cryptoki's own load of it does.
        let library = unsafe { Pkcs11::new(path) }.map_err(Error::LibraryLoading)?;
        let Ok(entry) = library.C_GetFunctionList else {
            return Err(Error::MissingSymbol("C_GetFunctionList"));
        };
        let mut lists: [*mut CK_FUNCTION_LIST; 2] = [null_mut(); 2];
        for list in &mut lists {
            // SAFETY: C_GetFunctionList (PKCS#11 section 5.4) stores a pointer.
            Rv::from(unsafe { library.C_GetFunctionList(list) })
                .into_result(Function::GetFunctionList)?;
        }
        let [list, again] = lists;
        // SAFETY: after CKR_OK the pointer is null or stays valid while the library is loaded.
        let functions = *unsafe { list.as_ref() }.ok_or(Error::NullFunctionPointer)?;
        let raw = (list == again).then_some(Raw {
            functions,
            _library: library,
        });
        Ok((Entry(entry as usize), raw))
    }

    /// `C_Initialize` (PKCS#11 section 5.4.1) with these flags and this text in `pReserved`; with NULL where there are no
    /// flags.
    pub fn initialize(&self, flags: Option<CK_FLAGS>, text: Option<&CStr>) -> Result<()> {
        let text = text.map_or(null_mut(), |text| text.as_ptr().cast_mut());
        let mut arguments = InitializeArguments {
            standard: CK_C_INITIALIZE_ARGS {
                flags: flags.unwrap_or_default(),
                pReserved: text.cast(),
                ..CK_C_INITIALIZE_ARGS::default()
            },
            reserved_by_nss: null_mut(),
        };
        let pointer: *mut c_void = match flags {
            Some(_) => (&raw mut arguments).cast(),
            None => null_mut(),
        };
        call!(self, C_Initialize(pointer)).into_result(Function::Initialize)
    }

    /// `C_GetSlotList` (section 5.5.1): the slots with a token, or all.
    pub fn slots(&self, with_token: bool) -> Result<Vec<CK_SLOT_ID>> {
        list(Function::GetSlotList, |slots, count| {
            Ok(call!(self, C_GetSlotList(with_token.into(), slots, count)))
        })
    }

    /// `C_GetMechanismList` (section 5.5.6).
    pub fn mechanisms(&self, slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>> {
        list(Function::GetMechanismList, |mechanisms, count| {
            Ok(call!(self, C_GetMechanismList(slot, mechanisms, count)))
        })
    }

    /// `C_GetTokenInfo` (section 5.5.5).
    pub fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO> {
        let mut info = CK_TOKEN_INFO::default();
        call!(self, C_GetTokenInfo(slot, &mut info)).into_result(Function::GetTokenInfo)?;
        Ok(info)
    }

    /// `C_FindObjectsInit` (section 5.7.7).
    pub fn find_init(&self, session: &Session, template: &[Attribute]) -> Result<()> {
        let mut template: Vec<CK_ATTRIBUTE> = template.iter().map(Into::into).collect();
        let count = template.len() as CK_ULONG;
        call!(
            self,
            C_FindObjectsInit(session.handle(), template.as_mut_ptr(), count)
        )
        .into_result(Function::FindObjectsInit)
    }

    /// `C_FindObjects` (section 5.7.8): the next handles, none at the end.
    pub fn find_next(&self, session: &Session) -> Result<Vec<ObjectHandle>> {
        let mut handles: [CK_OBJECT_HANDLE; HANDLES] = [0; HANDLES];
        let (most, mut count) = (HANDLES as CK_ULONG, 0);
        call!(
            self,
            C_FindObjects(session.handle(), handles.as_mut_ptr(), most, &mut count)
        )
        .into_result(Function::FindObjects)?;
        if count > most {
            return Err(Error::InvalidValue);
        }
        let found = handles.iter().take(count as usize);
        // SAFETY: the module gave these handles; a wrong one is refused by it.
        Ok(found
            .map(|handle| unsafe { ObjectHandle::new_from_raw(*handle) })
            .collect())
    }

    /// `C_FindObjectsFinal` (section 5.7.9).
    pub fn find_end(&self, session: &Session) -> Result<()> {
        call!(self, C_FindObjectsFinal(session.handle())).into_result(Function::FindObjectsFinal)
    }

    /// `C_GetAttributeValue` (section 5.7.5) into one zeroed buffer each, as long as is said. An attribute
    /// that the object does not have, or that does not fit, is `None`; the return value says whether that
    /// was so.
    pub fn attributes(
        &self,
        session: &Session,
        object: ObjectHandle,
        wanted: &[(AttributeType, usize)],
    ) -> Result<(Vec<Option<Vec<u8>>>, Rv)> {
        let mut buffers: Vec<Vec<u8>> = wanted.iter().map(|(_, most)| vec![0; *most]).collect();
        let each = wanted.iter().zip(&mut buffers);
        let mut template: Vec<CK_ATTRIBUTE> = each
            .map(|((kind, _), buffer)| CK_ATTRIBUTE {
                type_: (*kind).into(),
                pValue: buffer.as_mut_ptr().cast(),
                ulValueLen: buffer.len() as CK_ULONG,
            })
            .collect();
        let count = template.len() as CK_ULONG;
        let (session, object) = (session.handle(), object.handle());
        let rv = call!(
            self,
            C_GetAttributeValue(session, object, template.as_mut_ptr(), count)
        );
        let lengths = template.iter().map(|attribute| attribute.ulValueLen);
        let values = buffers.iter().zip(lengths).map(|(buffer, length)| {
            if length == CK_UNAVAILABLE_INFORMATION {
                return None;
            }
            // As short as it is: what is kept of an object should not be as long as it could have been.
            buffer
                .get(..usize::try_from(length).ok()?)
                .map(<[u8]>::to_vec)
        });
        Ok((values.collect(), rv))
    }

    /// `C_SignInit` (section 5.13.1).
    pub fn sign_init(&self, session: &Session, how: &Mechanism, key: ObjectHandle) -> Result<()> {
        let mut mechanism = CK_MECHANISM::from(how);
        call!(
            self,
            C_SignInit(session.handle(), &mut mechanism, key.handle())
        )
        .into_result(Function::SignInit)
    }

    /// `C_Sign` (section 5.13.2) into a buffer of `expected` bytes, in one call where that is enough.
    pub fn sign(&self, session: &Session, data: &[u8], expected: usize) -> Result<Vec<u8>> {
        let mut signature = vec![0; expected];
        loop {
            let mut length = signature.len() as CK_ULONG;
            let (input, count) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
            let output = signature.as_mut_ptr();
            let rv = call!(
                self,
                C_Sign(session.handle(), input, count, output, &mut length)
            );
            let length = usize::try_from(length)?;
            match rv {
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

/// What a module forks takes the signals that this process blocks. What it starts by posix_spawn(3) does not.
#[cfg(feature = "daemon")]
pub(crate) fn unblock_signals_in_forks() -> std::io::Result<()> {
    extern "C" fn unblock() {
        let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    }
    // SAFETY: the handler only calls pthread_sigmask(3), which may be called after fork(2).
    match unsafe { nix::libc::pthread_atfork(None, None, Some(unblock)) } {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error)),
    }
}
