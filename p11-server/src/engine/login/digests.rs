//! PINs and tokens as only who has the salt can tell them again.

use subtle::{Choice, ConstantTimeEq};

/// A PIN for one role on one token, or a token, salted.
pub(crate) type Salted = [u8; 32];

/// PINs that are remembered of one kind; the oldest goes.
const MOST_REMEMBERED: usize = 64;

/// Compares in constant time.
pub(super) fn same(a: &Salted, b: &Salted) -> bool {
    a.ct_eq(b).into()
}

/// Whether it is one of them, in a time that does not tell which.
pub(super) fn contains(all: &[Salted], one: &Salted) -> bool {
    let any = |found: Choice, other: &Salted| found | other.ct_eq(one);
    all.iter().fold(Choice::from(0), any).into()
}

/// As the last of them, once.
pub(super) fn remember(all: &mut Vec<Salted>, pin: Salted) {
    all.retain(|other| *other != pin);
    all.push(pin);
    if all.len() > MOST_REMEMBERED {
        all.remove(0);
    }
}
