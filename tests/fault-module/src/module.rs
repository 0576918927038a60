//! The module itself: the functions that an application calls.

use std::io::{self, Write as _};

use cryptoki_sys::*;

use crate::args::{
    Arg, Count, Key, Mechanism, MechanismType, NewObject, NewSlot, Object, Session, SessionInfo,
    Slot, SlotInfo, Token, TokenInfo,
};
use crate::function::{Function, with_functions};
use crate::real::call_real;
use crate::rules::Moment;
use crate::state::State;
use crate::{
    attributes, call, generate, lifecycle, login, objects, session, signing, slots, token,
};

/// The entry of every PKCS#11 module (PKCS#11 2.40, 5.4).
///
/// # Safety
/// `list` must be null or valid for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if let Err(error) = State::load() {
        // The return value cannot say why.
        let _ = writeln!(io::stderr(), "p11-fault-module: {error}");
        return CKR_GENERAL_ERROR;
    }
    // SAFETY: as the caller promises.
    unsafe { table::C_GetFunctionList(list) }
}

unsafe fn function_list(
    _: &call::Call,
    _: impl FnOnce() -> CK_RV,
    list: *mut *mut CK_FUNCTION_LIST,
) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: not null, so valid as the caller of `C_GetFunctionList` promises. Applications only read the list.
    unsafe { *list = (&raw const table::LIST).cast_mut() };
    CKR_OK
}

/// Makes the functions of the table, and the list of them.
macro_rules! define {
    ($($name:ident($($arg:ident: $type:ty),*) $(=> $handler:path)?;)*) => {
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the names and parameters of the standard")]
        mod table {
            use super::*;

            pub static LIST: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
                version: CK_VERSION { major: 2, minor: 40 },
                $($name: Some($name),)*
            };

            $(pub unsafe extern "C" fn $name($($arg: <$type as Arg>::Raw),*) -> CK_RV {
                call::run(Function::$name, |call| {
                    // SAFETY: the application keeps PKCS#11, which is all that `Arg` and the handlers ask.
                    unsafe {
                        $(let $arg = <$type as Arg>::translate_in($arg, call)?;)*
                        call.inject(Moment::Before)?;
                        let rv = {
                            let _inside = call.enter_real();
                            handle!(call, $name($($arg),*) $(=> $handler)?)
                        };
                        call.inject(Moment::After)?;
                        if rv == CKR_OK {
                            $(<$type as Arg>::translate_out($arg, call);)*
                        }
                        Ok(rv)
                    }
                })
            })*
        }
    };
}

macro_rules! handle {
    ($call:ident, $name:ident($($arg:ident),*)) => { call_real!($name($($arg),*)) };
    ($call:ident, $name:ident($($arg:ident),*) => $handler:path) => {
        $handler($call, || call_real!($name($($arg),*)), $($arg),*)
    };
}

with_functions!(define);
