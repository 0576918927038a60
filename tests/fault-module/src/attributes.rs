//! `C_GetAttributeValue`: attributes that rules hide, replace, make fail or give another length.

use cryptoki_sys::*;

use crate::call::Call;
use crate::real;
use crate::real::call_real;
use crate::rules::{Answer, Rule};

/// # Safety
/// As PKCS#11 demands for `C_GetAttributeValue`.
pub(crate) unsafe fn get(
    call: &Call,
    forward: impl FnOnce() -> CK_RV,
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    let answers = answers(call, session, object);
    if answers.is_empty() || template.is_null() {
        return forward();
    }
    // SAFETY: not null, so valid as the caller promises.
    let template = unsafe { std::slice::from_raw_parts_mut(template, count as usize) };
    let answer_to = |attribute: &CK_ATTRIBUTE| {
        let answer = answers.iter().find(|(asked, _)| *asked == attribute.type_);
        answer.map(|(_, answer)| answer)
    };
    let failure = template
        .iter()
        .find_map(|attribute| match answer_to(attribute) {
            Some(Answer::Fails(rv)) => Some(*rv),
            _ => None,
        });
    if let Some(rv) = failure {
        return rv;
    }

    let (ours, theirs): (Vec<_>, Vec<_>) = template.iter_mut().partition(|attribute| {
        matches!(
            answer_to(attribute),
            Some(Answer::Hidden | Answer::Value(_))
        )
    });
    let mut real: Vec<CK_ATTRIBUTE> = theirs.iter().map(|attribute| **attribute).collect();
    let count = real.len() as CK_ULONG;
    // SAFETY: copies of the application's attributes, with its buffers.
    let mut rv = unsafe {
        call_real!(C_GetAttributeValue(
            session,
            object,
            real.as_mut_ptr(),
            count
        ))
    };
    for (attribute, real) in theirs.into_iter().zip(real) {
        attribute.ulValueLen = match answer_to(attribute) {
            Some(Answer::Length(length)) => *length,
            _ => real.ulValueLen,
        };
    }
    for attribute in ours {
        let own = match answer_to(attribute) {
            // SAFETY: the attribute is as the caller promises.
            Some(Answer::Value(value)) => unsafe { write(value, attribute) },
            _ => unavailable(attribute, CKR_ATTRIBUTE_TYPE_INVALID),
        };
        if rv == CKR_OK {
            rv = own;
        }
    }
    rv
}

/// What the rules make this object answer.
fn answers(
    call: &Call,
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
) -> Vec<(CK_ATTRIBUTE_TYPE, Answer)> {
    let about_objects =
        |rule: &Rule| matches!(rule, Rule::Object { .. } | Rule::AlwaysAuthenticate(_));
    if !call.rules.iter().any(about_objects) {
        return Vec::new();
    }
    let Some((class, label)) = real::class_and_label(session, object) else {
        return Vec::new();
    };
    let answers = call.rules.iter().filter_map(|rule| match rule {
        Rule::Object {
            class: c,
            label: l,
            attribute,
            answer,
        } if *l == label && *c == class => Some((*attribute, answer.clone())),
        Rule::AlwaysAuthenticate(key) if *key == label && class == CKO_PRIVATE_KEY => {
            Some((CKA_ALWAYS_AUTHENTICATE, Answer::Value(vec![CK_TRUE])))
        }
        _ => None,
    });
    answers.collect()
}

/// Gives a value as PKCS#11 does: its length alone without a buffer, nothing if the buffer is too small.
///
/// # Safety
/// The attribute's buffer must be null or valid for the attribute's length.
unsafe fn write(value: &[u8], attribute: &mut CK_ATTRIBUTE) -> CK_RV {
    if !attribute.pValue.is_null() {
        if (attribute.ulValueLen as usize) < value.len() {
            return unavailable(attribute, CKR_BUFFER_TOO_SMALL);
        }
        // SAFETY: the buffer has room for the value, and is not ours.
        unsafe {
            attribute
                .pValue
                .cast::<u8>()
                .copy_from_nonoverlapping(value.as_ptr(), value.len())
        };
    }
    attribute.ulValueLen = value.len() as CK_ULONG;
    CKR_OK
}

fn unavailable(attribute: &mut CK_ATTRIBUTE, rv: CK_RV) -> CK_RV {
    attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
    rv
}
