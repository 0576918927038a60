//! Slots: which ids the application sees (renumbered, swapped), and which slots seem empty (hidden tokens).

use cryptoki_sys::*;

use crate::active_rules::RuleSet;
use crate::call::Call;
use crate::real;
use crate::rules::{Rule, TokenFault};

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
        Rule::SlotOffset(offset) => Some(*offset),
        _ => None,
    });
    offsets.sum()
}

fn swap(id: CK_SLOT_ID, rule: &Rule) -> CK_SLOT_ID {
    let Rule::SwapSlots(first, second) = rule else {
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
/// `count` must be null or valid, and `list` null or valid for `*count` ids.
pub(crate) unsafe fn list(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    token_present: CK_BBOOL,
    list: *mut CK_SLOT_ID,
    count: *mut CK_ULONG,
) -> CK_RV {
    let is_other = |rule: &Rule| match rule {
        Rule::SlotOffset(_) | Rule::SwapSlots(..) => true,
        Rule::Token { fault, .. } => *fault == TokenFault::Hidden,
        _ => false,
    };
    if count.is_null() || !call.rules.iter().any(is_other) {
        return forward();
    }
    // For its errors, and for what SoftHSM does at this query.
    let rv = real::count_slots(token_present);
    if rv != CKR_OK {
        return rv;
    }
    let slots: Vec<_> = real::slots(token_present != CK_FALSE)
        .into_iter()
        .filter(|slot| token_present == CK_FALSE || !is_hidden(&call.rules, *slot))
        .map(|slot| visible_id(&call.rules, slot))
        .collect();
    // SAFETY: as the caller promises.
    unsafe { write_list(&slots, list, count) }
}

fn is_hidden(rules: &RuleSet, slot: CK_SLOT_ID) -> bool {
    rules.iter().any(|rule| match rule {
        Rule::Token {
            token,
            fault: TokenFault::Hidden,
        } => token.is_none() || real::label(slot) == *token,
        _ => false,
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
