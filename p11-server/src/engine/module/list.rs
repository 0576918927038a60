//! Lists of numbers that a module gives, no longer than they can be.

use std::ptr::null_mut;

use cryptoki::context::Function;
use cryptoki::error::{Error, Result, Rv};
use cryptoki_sys::CK_ULONG;

/// No module lists more slots, and no token more mechanisms.
const LONGEST_LIST: usize = 10_000;

/// A list of numbers, whose length is asked first: some modules look for new readers only then (OpenSC).
pub(super) fn list(
    function: Function,
    ask: impl Fn(*mut CK_ULONG, &mut CK_ULONG) -> Result<Rv>,
) -> Result<Vec<CK_ULONG>> {
    let mut count = 0;
    ask(null_mut(), &mut count)?.into_result(function)?;
    // With room for a few that come meanwhile.
    let mut list = vec![0; (count as usize).saturating_add(16).min(LONGEST_LIST)];
    count = list.len() as CK_ULONG;
    ask(list.as_mut_ptr(), &mut count)?.into_result(function)?;
    if count as usize > list.len() {
        return Err(Error::InvalidValue);
    }
    list.truncate(count as usize);
    Ok(list)
}
