//! The functions of PKCS#11 that the engine calls, with the pointers of C.

use std::ffi::c_void;
use std::slice;

use cryptoki_sys::*;

use crate::device;
use crate::device::Device;

/// The list of them. Those that are missing are called by nobody.
pub(crate) fn list() -> CK_FUNCTION_LIST {
    CK_FUNCTION_LIST {
        version: CK_VERSION {
            major: 2,
            minor: 40,
        },
        C_Initialize: Some(initialize),
        C_Finalize: Some(finalize),
        C_GetInfo: Some(info),
        C_GetSlotList: Some(slots),
        C_GetSlotInfo: Some(slot_info),
        C_GetTokenInfo: Some(token_info),
        C_GetMechanismList: Some(mechanisms),
        C_GetMechanismInfo: Some(mechanism_info),
        C_InitToken: Some(init_token),
        C_InitPIN: Some(init_pin),
        C_SetPIN: Some(set_pin),
        C_OpenSession: Some(open),
        C_CloseSession: Some(close),
        C_GetSessionInfo: Some(session_info),
        C_Login: Some(login),
        C_Logout: Some(logout),
        C_GetAttributeValue: Some(attributes),
        C_FindObjectsInit: Some(find),
        C_FindObjects: Some(found),
        C_FindObjectsFinal: Some(find_end),
        C_SignInit: Some(sign_init),
        C_Sign: Some(sign),
        ..CK_FUNCTION_LIST::default()
    }
}

/// Asks the device, in a process that lives and has initialised the module.
fn ask(call: impl FnOnce(&mut Device) -> Result<(), CK_RV>) -> CK_RV {
    let mut device = device();
    let answer = device.check_alive().and_then(|()| call(&mut device));
    answer.err().unwrap_or(CKR_OK)
}

/// Writes where the caller wants it.
///
/// # Safety
/// `place` must be valid.
unsafe fn tell<T>(place: *mut T, value: T) -> Result<(), CK_RV> {
    // SAFETY: as the caller promises.
    unsafe { place.write(value) };
    Ok(())
}

/// # Safety
/// `bytes` must be null or valid for `length` bytes.
unsafe fn bytes<'a>(bytes: *const CK_UTF8CHAR, length: CK_ULONG) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!bytes.is_null()).then(|| unsafe { slice::from_raw_parts(bytes, length as usize) })
}

/// A list, or its length where there is no place for it.
///
/// # Safety
/// `count` must be valid, and `list` null or valid for as many as `count` says.
unsafe fn tell_list(
    all: &[CK_ULONG],
    list: *mut CK_ULONG,
    count: *mut CK_ULONG,
) -> Result<(), CK_RV> {
    // SAFETY: as the caller promises.
    unsafe {
        let room = count.replace(all.len() as CK_ULONG) as usize;
        if list.is_null() {
            return Ok(());
        }
        if room < all.len() {
            return Err(CKR_BUFFER_TOO_SMALL);
        }
        list.copy_from_nonoverlapping(all.as_ptr(), all.len());
    }
    Ok(())
}

unsafe extern "C" fn initialize(_: *mut c_void) -> CK_RV {
    device().initialize().err().unwrap_or(CKR_OK)
}

unsafe extern "C" fn finalize(_: *mut c_void) -> CK_RV {
    device().finalize().err().unwrap_or(CKR_OK)
}

// SAFETY of all below: the application keeps PKCS#11, so pointers are valid for what the standard says of them.

unsafe extern "C" fn info(info: *mut CK_INFO) -> CK_RV {
    ask(|_| unsafe { tell(info, CK_INFO::default()) })
}

unsafe extern "C" fn slots(_: CK_BBOOL, list: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    ask(|device| {
        let all: Vec<_> = (0..device.tokens.len() as CK_SLOT_ID).collect();
        unsafe { tell_list(&all, list, count) }
    })
}

unsafe extern "C" fn slot_info(_: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    let told = CK_SLOT_INFO {
        flags: CKF_TOKEN_PRESENT,
        ..CK_SLOT_INFO::default()
    };
    ask(|_| unsafe { tell(info, told) })
}

unsafe extern "C" fn token_info(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    ask(|device| unsafe { tell(info, device.token_info(slot)?) })
}

unsafe extern "C" fn mechanisms(
    _: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    count: *mut CK_ULONG,
) -> CK_RV {
    ask(|_| unsafe { tell_list(&[CKM_ECDSA], list, count) })
}

unsafe extern "C" fn mechanism_info(
    _: CK_SLOT_ID,
    _: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    let told = CK_MECHANISM_INFO {
        ulMinKeySize: 256,
        ulMaxKeySize: 256,
        flags: CKF_SIGN,
    };
    ask(|_| unsafe { tell(info, told) })
}

unsafe extern "C" fn init_token(
    slot: CK_SLOT_ID,
    pin: *mut CK_UTF8CHAR,
    length: CK_ULONG,
    _: *mut CK_UTF8CHAR,
) -> CK_RV {
    ask(|device| {
        let pin = unsafe { bytes(pin, length) };
        device.init_token(slot, pin.ok_or(CKR_ARGUMENTS_BAD)?)
    })
}

unsafe extern "C" fn init_pin(
    session: CK_SESSION_HANDLE,
    pin: *mut CK_UTF8CHAR,
    length: CK_ULONG,
) -> CK_RV {
    ask(|device| {
        let pin = unsafe { bytes(pin, length) };
        device.init_pin(session, pin.ok_or(CKR_ARGUMENTS_BAD)?)
    })
}

unsafe extern "C" fn set_pin(
    session: CK_SESSION_HANDLE,
    old: *mut CK_UTF8CHAR,
    old_length: CK_ULONG,
    new: *mut CK_UTF8CHAR,
    new_length: CK_ULONG,
) -> CK_RV {
    ask(|device| {
        let pins = unsafe { (bytes(old, old_length), bytes(new, new_length)) };
        let (Some(old), Some(new)) = pins else {
            return Err(CKR_ARGUMENTS_BAD);
        };
        device.set_pin(session, old, new)
    })
}

unsafe extern "C" fn open(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    _: *mut c_void,
    _: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    ask(|device| unsafe { tell(session, device.open(slot, flags)?) })
}

unsafe extern "C" fn close(session: CK_SESSION_HANDLE) -> CK_RV {
    ask(|device| device.close(session))
}

unsafe extern "C" fn session_info(session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO) -> CK_RV {
    ask(|device| unsafe { tell(info, device.session_info(session)?) })
}

unsafe extern "C" fn login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    length: CK_ULONG,
) -> CK_RV {
    ask(|device| device.login(session, user, unsafe { bytes(pin, length) }))
}

unsafe extern "C" fn logout(session: CK_SESSION_HANDLE) -> CK_RV {
    ask(|device| device.logout(session))
}

unsafe extern "C" fn attributes(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    ask(|device| {
        let template = unsafe { slice::from_raw_parts_mut(template, count as usize) };
        let mut answer = Ok(());
        for attribute in template {
            match device.attribute(session, object, attribute.type_)? {
                Some(value) if value.len() as CK_ULONG <= attribute.ulValueLen => {
                    let place: *mut u8 = attribute.pValue.cast();
                    unsafe { place.copy_from_nonoverlapping(value.as_ptr(), value.len()) };
                    attribute.ulValueLen = value.len() as CK_ULONG;
                }
                _ => {
                    attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                    answer = Err(CKR_ATTRIBUTE_TYPE_INVALID);
                }
            }
        }
        answer
    })
}

unsafe extern "C" fn find(
    session: CK_SESSION_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    ask(|device| {
        let template = unsafe { slice::from_raw_parts(template, count as usize) };
        let class = template
            .iter()
            .find(|attribute| attribute.type_ == CKA_CLASS);
        let class = class.map(|class| unsafe { class.pValue.cast::<CK_OBJECT_CLASS>().read() });
        device.find(session, class)
    })
}

unsafe extern "C" fn found(
    session: CK_SESSION_HANDLE,
    list: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    ask(|device| {
        let found = device.found(session)?;
        unsafe {
            count.write(most);
            tell_list(&found, list, count)
        }
    })
}

unsafe extern "C" fn find_end(_: CK_SESSION_HANDLE) -> CK_RV {
    ask(|_| Ok(()))
}

unsafe extern "C" fn sign_init(
    session: CK_SESSION_HANDLE,
    _: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    ask(|device| device.sign_init(session, key))
}

unsafe extern "C" fn sign(
    session: CK_SESSION_HANDLE,
    _: *mut CK_BYTE,
    _: CK_ULONG,
    signature: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    ask(|device| {
        let made = device.sign(session)?;
        unsafe {
            if (length.replace(made.len() as CK_ULONG) as usize) < made.len() {
                return Err(CKR_BUFFER_TOO_SMALL);
            }
            signature.copy_from_nonoverlapping(made.as_ptr(), made.len());
        }
        Ok(())
    })
}
