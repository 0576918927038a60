//! The shortest way to a PKCS#11 signature: no wrapper, two calls, one kept session. The bare signer uses it, and it is
//! the fairest for p11-kit, which gives each caller an instance of its own.
#![allow(
    unsafe_code,
    reason = "PKCS#11 is a C interface, and a wrapper would be measured with it"
)]

use std::path::Path;
use std::ptr::{null, null_mut};

use cryptoki_sys::*;

/// A module that was loaded and initialised, for as long as the process lives.
#[derive(Clone, Copy)]
pub struct Module(&'static CK_FUNCTION_LIST);

/// A session that is logged in, and a key.
pub struct Signer {
    module: Module,
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
}

/// Calls a function of the module and stops where it fails.
macro_rules! call {
    ($module:expr, $function:ident $(, $argument:expr)*) => {{
        let function = $module.0.$function.expect(stringify!($function));
        // SAFETY: the arguments are as PKCS#11 wants them for this function: lengths go with their
        // buffers, and pointers live as long as the call.
        let rv = unsafe { function($($argument),*) };
        assert_eq!(rv, CKR_OK, stringify!($function));
    }};
}

impl Module {
    /// Loads and initialises a module.
    pub fn load(path: &Path) -> Module {
        // SAFETY: the library is never unloaded, so its list of functions stays where it is.
        let module = unsafe {
            let library = Box::leak(Box::new(Pkcs11::new(path).expect("a PKCS#11 module")));
            let mut list = null_mut();
            assert_eq!(library.C_GetFunctionList(&mut list), CKR_OK);
            Module(&*list)
        };
        let mut arguments = CK_C_INITIALIZE_ARGS {
            flags: CKF_OS_LOCKING_OK,
            ..CK_C_INITIALIZE_ARGS::default()
        };
        call!(module, C_Initialize, (&raw mut arguments).cast());
        module
    }

    /// A session of its own on the only initialised token, with its first private key.
    pub fn signer(self, pin: &str) -> Signer {
        let session = self.open_session(pin, CKF_SERIAL_SESSION);
        let (mut class, mut label) = (CKO_PRIVATE_KEY, *b"key");
        let mut template = [
            attribute(CKA_CLASS, &mut class),
            text(CKA_LABEL, &mut label),
        ];
        let (mut key, mut found) = (0, 0);
        let size = template.len() as CK_ULONG;
        call!(
            self,
            C_FindObjectsInit,
            session,
            template.as_mut_ptr(),
            size
        );
        call!(self, C_FindObjects, session, &mut key, 1, &mut found);
        call!(self, C_FindObjectsFinal, session);
        assert_eq!(found, 1, "the key");
        Signer {
            module: self,
            session,
            key,
        }
    }

    /// Generates P-256 key pairs, each of a label and id of its own.
    pub fn generate(self, pin: &str, labels: impl Iterator<Item = String>) {
        let session = self.open_session(pin, CKF_SERIAL_SESSION | CKF_RW_SESSION);
        // The OID of prime256v1 (RFC 5480 section 2.1.1.1).
        let mut curve = *b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
        let (mut yes, mut sign) = (CK_TRUE, CK_TRUE);
        let mut mechanism = CK_MECHANISM {
            mechanism: CKM_EC_KEY_PAIR_GEN,
            pParameter: null_mut(),
            ulParameterLen: 0,
        };
        for label in labels {
            let (mut label, mut id) = (label.clone().into_bytes(), label.into_bytes());
            let both = [
                attribute(CKA_TOKEN, &mut yes),
                text(CKA_LABEL, &mut label),
                text(CKA_ID, &mut id),
            ];
            let [mut public, mut private] = [both.to_vec(), both.to_vec()];
            public.push(text(CKA_EC_PARAMS, &mut curve));
            private.push(attribute(CKA_SIGN, &mut sign));
            let (public_size, private_size) = (public.len() as CK_ULONG, private.len() as CK_ULONG);
            let (mut public_key, mut private_key) = (0, 0);
            call!(
                self,
                C_GenerateKeyPair,
                session,
                &mut mechanism,
                public.as_mut_ptr(),
                public_size,
                private.as_mut_ptr(),
                private_size,
                &mut public_key,
                &mut private_key
            );
        }
    }

    /// A session on the only initialised token, logged in.
    fn open_session(self, pin: &str, flags: CK_FLAGS) -> CK_SESSION_HANDLE {
        let mut slots = [0; 16];
        let mut count = slots.len() as CK_ULONG;
        call!(self, C_GetSlotList, CK_TRUE, slots.as_mut_ptr(), &mut count);
        let initialized = |slot: &CK_SLOT_ID| {
            let mut info = CK_TOKEN_INFO::default();
            call!(self, C_GetTokenInfo, *slot, &mut info);
            info.flags & CKF_TOKEN_INITIALIZED != 0
        };
        let slot = slots[..count as usize]
            .iter()
            .copied()
            .find(initialized)
            .expect("a token");
        let mut session = 0;
        call!(
            self,
            C_OpenSession,
            slot,
            flags,
            null_mut(),
            None,
            &mut session
        );
        let login = self.0.C_Login.expect("C_Login");
        // SAFETY: the PIN is read, in its length.
        let rv = unsafe {
            login(
                session,
                CKU_USER,
                pin.as_ptr().cast_mut(),
                pin.len() as CK_ULONG,
            )
        };
        assert!(matches!(rv, CKR_OK | CKR_USER_ALREADY_LOGGED_IN), "C_Login");
        session
    }
}

/// An attribute of one value. It must not outlive it.
fn attribute<T>(type_: CK_ATTRIBUTE_TYPE, value: &mut T) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_,
        pValue: (&raw mut *value).cast(),
        ulValueLen: size_of::<T>() as CK_ULONG,
    }
}

/// An attribute of bytes. It must not outlive them.
fn text(type_: CK_ATTRIBUTE_TYPE, bytes: &mut [u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_,
        pValue: bytes.as_mut_ptr().cast(),
        ulValueLen: bytes.len() as CK_ULONG,
    }
}

impl Signer {
    /// Signs a digest: `r || s`.
    pub fn sign(&mut self, digest: &[u8; 32]) -> [u8; 64] {
        let mut mechanism = CK_MECHANISM {
            mechanism: CKM_ECDSA,
            pParameter: null::<u8>().cast_mut().cast(),
            ulParameterLen: 0,
        };
        let mut signature = [0; 64];
        let mut length = signature.len() as CK_ULONG;
        let (data, size) = (digest.as_ptr().cast_mut(), digest.len() as CK_ULONG);
        call!(
            self.module,
            C_SignInit,
            self.session,
            &mut mechanism,
            self.key
        );
        let out = signature.as_mut_ptr();
        call!(
            self.module,
            C_Sign,
            self.session,
            data,
            size,
            out,
            &mut length
        );
        signature
    }
}
