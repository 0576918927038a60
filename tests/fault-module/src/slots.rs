//! Slots: which ids the application sees (renumbered, swapped), and which slots seem empty (hidden tokens).

use std::ffi::c_void;

use cryptoki_sys::*;

use crate::call::Call;
use crate::module::forward;
use crate::real;
use crate::rule_book::RuleSet;
use crate::rules::Rule;

/// The real id of the slot that the application knows by this one. An id that no slot has stays one.
pub(crate) fn real_id(rules: &RuleSet, visible: CK_SLOT_ID) -> CK_SLOT_ID {
    let id = visible.wrapping_sub(offset(rules));
    rules.iter().rev().fold(id, swap)
}

/// The id by which the application knows a slot.
pub(crate) fn visible_id(rules: &RuleSet, real: CK_SLOT_ID) -> CK_SLOT_ID {
    rules.iter().fold(real, swap).wrapping_add(offset(rules))
}

fn offset(rules: &RuleSet) -> CK_SLOT_ID {
    let offsets = rules.iter().filter_map(|rule| match rule {
        Rule::SlotOffset { offset } => Some(*offset),
        _ => None,
    });
    offsets.sum()
}

fn swap(id: CK_SLOT_ID, rule: &Rule) -> CK_SLOT_ID {
    let Rule::SwapSlots { first, second } = rule else {
        return id;
    };
    match (slot_of(first), slot_of(second)) {
        (Some(first), Some(second)) if id == first => second,
        (Some(first), Some(second)) if id == second => first,
        _ => id,
    }
}

fn slot_of(label: &str) -> Option<CK_SLOT_ID> {
    let slots = real::slots(true);
    slots
        .into_iter()
        .find(|slot| real::label(*slot).as_deref() == Some(label))
}

/// # Safety
/// As PKCS#11 demands for `C_GetSlotList`.
pub(crate) unsafe fn list(
    call: &Call,
    token_present: CK_BBOOL,
    list: *mut CK_SLOT_ID,
    count: *mut CK_ULONG,
) -> CK_RV {
    let changed = |rule| {
        matches!(
            rule,
            &Rule::SlotOffset { .. } | Rule::SwapSlots { .. } | Rule::HideToken { .. }
        )
    };
    if count.is_null() || !call.rules.iter().any(changed) {
        // SAFETY: as the caller promises.
        return unsafe { forward::C_GetSlotList(token_present, list, count) };
    }
    let mut real_count = 0;
    // SAFETY: a null list asks for the count alone. For its errors, and for what SoftHSM does at this query.
    let rv =
        unsafe { forward::C_GetSlotList(token_present, std::ptr::null_mut(), &mut real_count) };
    if rv != CKR_OK {
        return rv;
    }
    let slots: Vec<_> = real::slots(token_present != CK_FALSE)
        .into_iter()
        .filter(|slot| token_present == CK_FALSE || !is_hidden(call, *slot))
        .map(|slot| visible_id(&call.rules, slot))
        .collect();
    // SAFETY: as the caller promises.
    unsafe { write_list(&slots, list, count) }
}

fn is_hidden(call: &Call, slot: CK_SLOT_ID) -> bool {
    call.rules.iter().any(|rule| {
        matches!(rule, Rule::HideToken { token } if token.is_none() || real::label(slot) == *token)
    })
}

/// Gives the application a list in the way of `C_GetSlotList` and `C_GetMechanismList` (PKCS#11 2.40, 5.2).
///
/// # Safety
/// `count` must be valid, and `list` null or valid for `*count` numbers.
pub(crate) unsafe fn write_list(
    numbers: &[CK_ULONG],
    list: *mut CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    // SAFETY: as the caller promises.
    let room = unsafe { count.replace(numbers.len() as CK_ULONG) };
    if list.is_null() {
        return CKR_OK;
    }
    if (room as usize) < numbers.len() {
        return CKR_BUFFER_TOO_SMALL;
    }
    // SAFETY: the list has room for them, and is not ours.
    unsafe { list.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len()) };
    CKR_OK
}

/// # Safety
/// As PKCS#11 demands for `C_GetSlotInfo`.
pub(crate) unsafe fn info(call: &Call, slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    // SAFETY: as the caller promises.
    let rv = unsafe { forward::C_GetSlotInfo(slot, info) };
    if rv == CKR_OK && call.is_hidden() {
        // SAFETY: the call succeeded, so the pointer is valid.
        unsafe { (*info).flags &= !CKF_TOKEN_PRESENT };
    }
    rv
}

/// # Safety
/// As PKCS#11 demands for `C_WaitForSlotEvent`.
pub(crate) unsafe fn wait_for_event(
    call: &Call,
    flags: CK_FLAGS,
    slot: *mut CK_SLOT_ID,
    reserved: *mut c_void,
) -> CK_RV {
    // SAFETY: as the caller promises.
    let rv = unsafe { forward::C_WaitForSlotEvent(flags, slot, reserved) };
    if rv == CKR_OK {
        // SAFETY: the call succeeded, so the pointer is valid.
        unsafe { *slot = visible_id(&call.rules, *slot) };
    }
    rv
}
