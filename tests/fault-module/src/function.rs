//! The functions of PKCS#11 2.40, in one table.

use serde::{Deserialize, Serialize};

/// Hands the table to a macro, in the order of `CK_FUNCTION_LIST`. Parameters have their type in C, or one of `args`
/// that translates them. A line with `=>` has a handler, which gets the call of the real module as a closure and need
/// not make it; the others go straight to the real module.
macro_rules! with_functions {
    ($macro:ident) => {
        $macro! {
            C_Initialize(args: *mut std::ffi::c_void) => lifecycle::initialize;
            C_Finalize(reserved: *mut std::ffi::c_void) => lifecycle::finalize;
            C_GetInfo(info: *mut CK_INFO);
            C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) => function_list;
            C_GetSlotList(token_present: CK_BBOOL, list: *mut CK_SLOT_ID, count: Count) => slots::list;
            C_GetSlotInfo(slot: Slot, info: SlotInfo);
            C_GetTokenInfo(slot: Token, info: TokenInfo);
            C_GetMechanismList(slot: Token, list: *mut CK_MECHANISM_TYPE, count: Count) => token::mechanism_list;
            C_GetMechanismInfo(slot: Token, mechanism: MechanismType, info: *mut CK_MECHANISM_INFO);
            C_InitToken(slot: Token, pin: *mut CK_UTF8CHAR, pin_len: CK_ULONG, label: *mut CK_UTF8CHAR) => login::init_token;
            C_InitPIN(session: Session, pin: *mut CK_UTF8CHAR, pin_len: CK_ULONG) => login::init_pin;
            C_SetPIN(session: Session, old: *mut CK_UTF8CHAR, old_len: CK_ULONG, new: *mut CK_UTF8CHAR, new_len: CK_ULONG) => login::set_pin;
            C_OpenSession(slot: Token, flags: CK_FLAGS, application: *mut std::ffi::c_void, notify: CK_NOTIFY, session: *mut CK_SESSION_HANDLE) => session::open;
            C_CloseSession(session: Session) => session::close;
            C_CloseAllSessions(slot: Slot) => session::close_all;
            C_GetSessionInfo(session: Session, info: SessionInfo);
            C_GetOperationState(session: Session, state: *mut CK_BYTE, state_len: Count);
            C_SetOperationState(session: Session, state: *mut CK_BYTE, state_len: CK_ULONG, encryption_key: Key, authentication_key: Key);
            C_Login(session: Session, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, pin_len: CK_ULONG) => login::login;
            C_Logout(session: Session);
            C_CreateObject(session: Session, template: *mut CK_ATTRIBUTE, count: CK_ULONG, object: NewObject);
            C_CopyObject(session: Session, object: Object, template: *mut CK_ATTRIBUTE, count: CK_ULONG, copy: NewObject);
            C_DestroyObject(session: Session, object: Object);
            C_GetObjectSize(session: Session, object: Object, size: Count);
            C_GetAttributeValue(session: Session, object: Object, template: *mut CK_ATTRIBUTE, count: CK_ULONG) => attributes::get;
            C_SetAttributeValue(session: Session, object: Object, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
            C_FindObjectsInit(session: Session, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
            C_FindObjects(session: Session, objects: *mut CK_OBJECT_HANDLE, max: CK_ULONG, count: Count) => objects::find;
            C_FindObjectsFinal(session: Session);
            C_EncryptInit(session: Session, mechanism: Mechanism, key: Key);
            C_Encrypt(session: Session, data: *mut CK_BYTE, data_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_EncryptUpdate(session: Session, part: *mut CK_BYTE, part_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_EncryptFinal(session: Session, out: *mut CK_BYTE, out_len: Count);
            C_DecryptInit(session: Session, mechanism: Mechanism, key: Key);
            C_Decrypt(session: Session, data: *mut CK_BYTE, data_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_DecryptUpdate(session: Session, part: *mut CK_BYTE, part_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_DecryptFinal(session: Session, out: *mut CK_BYTE, out_len: Count);
            C_DigestInit(session: Session, mechanism: Mechanism);
            C_Digest(session: Session, data: *mut CK_BYTE, data_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_DigestUpdate(session: Session, part: *mut CK_BYTE, part_len: CK_ULONG);
            C_DigestKey(session: Session, key: Key);
            C_DigestFinal(session: Session, out: *mut CK_BYTE, out_len: Count);
            C_SignInit(session: Session, mechanism: Mechanism, key: Key) => signing::init;
            C_Sign(session: Session, data: *mut CK_BYTE, data_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count) => signing::sign;
            C_SignUpdate(session: Session, part: *mut CK_BYTE, part_len: CK_ULONG) => signing::update;
            C_SignFinal(session: Session, out: *mut CK_BYTE, out_len: Count);
            C_SignRecoverInit(session: Session, mechanism: Mechanism, key: Key);
            C_SignRecover(session: Session, data: *mut CK_BYTE, data_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_VerifyInit(session: Session, mechanism: Mechanism, key: Key);
            C_Verify(session: Session, data: *mut CK_BYTE, data_len: CK_ULONG, signature: *mut CK_BYTE, signature_len: CK_ULONG);
            C_VerifyUpdate(session: Session, part: *mut CK_BYTE, part_len: CK_ULONG);
            C_VerifyFinal(session: Session, signature: *mut CK_BYTE, signature_len: CK_ULONG);
            C_VerifyRecoverInit(session: Session, mechanism: Mechanism, key: Key);
            C_VerifyRecover(session: Session, signature: *mut CK_BYTE, signature_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_DigestEncryptUpdate(session: Session, part: *mut CK_BYTE, part_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_DecryptDigestUpdate(session: Session, part: *mut CK_BYTE, part_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_SignEncryptUpdate(session: Session, part: *mut CK_BYTE, part_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_DecryptVerifyUpdate(session: Session, part: *mut CK_BYTE, part_len: CK_ULONG, out: *mut CK_BYTE, out_len: Count);
            C_GenerateKey(session: Session, mechanism: Mechanism, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: NewObject);
            C_GenerateKeyPair(session: Session, mechanism: Mechanism, public: *mut CK_ATTRIBUTE, public_count: CK_ULONG, private: *mut CK_ATTRIBUTE, private_count: CK_ULONG, public_key: NewObject, private_key: NewObject) => generate::key_pair;
            C_WrapKey(session: Session, mechanism: Mechanism, wrapping_key: Key, key: Key, out: *mut CK_BYTE, out_len: Count);
            C_UnwrapKey(session: Session, mechanism: Mechanism, unwrapping_key: Key, wrapped: *mut CK_BYTE, wrapped_len: CK_ULONG, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: NewObject);
            C_DeriveKey(session: Session, mechanism: Mechanism, base_key: Key, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: NewObject);
            C_SeedRandom(session: Session, seed: *mut CK_BYTE, seed_len: CK_ULONG);
            C_GenerateRandom(session: Session, random: *mut CK_BYTE, random_len: CK_ULONG);
            C_GetFunctionStatus(session: Session);
            C_CancelFunction(session: Session);
            C_WaitForSlotEvent(flags: CK_FLAGS, slot: NewSlot, reserved: *mut std::ffi::c_void);
        }
    };
}
pub(crate) use with_functions;

macro_rules! enumerate {
    ($($name:ident($($arg:ident: $type:ty),*) $(=> $handler:path)?;)*) => {
        /// A function, numbered in the order of `CK_FUNCTION_LIST`.
        #[allow(missing_docs, non_camel_case_types, reason = "the names of the standard, which explains them")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[repr(usize)]
        pub enum Function {
            $($name,)*
        }

        impl Function {
            /// All functions, in order.
            pub const ALL: [Self; [$(stringify!($name)),*].len()] = [$(Self::$name),*];

            /// The name in the standard.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

with_functions!(enumerate);
