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
            CKF_SERIAL_SESSION,
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

        let (mut class, label) = (CKO_PRIVATE_KEY, b"key");
        let mut template = [
            CK_ATTRIBUTE {
                type_: CKA_CLASS,
                pValue: (&raw mut class).cast(),
                ulValueLen: size_of_val(&class) as CK_ULONG,
            },
            CK_ATTRIBUTE {
                type_: CKA_LABEL,
                pValue: label.as_ptr().cast_mut().cast(),
                ulValueLen: label.len() as CK_ULONG,
            },
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
