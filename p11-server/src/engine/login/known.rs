//! What is remembered of the PINs of a token, and of what counts its wrong tries.

use std::time::Instant;

use super::digests::Salted;

/// What is known of the PINs of one role on one token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub counter: Salted,
    /// What the token has refused since it accepted one.
    pub refused: Vec<Salted>,
    /// What it has accepted last.
    pub accepted: Option<Salted>,
    pub unclear: Vec<Unclear>,
}

/// What counts wrong tries: a token for one role, or a TPM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counter {
    /// How many PINs were refused, since one was accepted.
    pub refusals: u32,
    /// How many more may have been, to which nothing is known any more.
    pub unclear: u32,
    /// Whether the operator has freed what was refused, since a PIN was accepted.
    pub freed: bool,
    /// The operator has set another PIN since then, or may have: that one may be sent once. Where nothing was refused, the
    /// budget is enough for it.
    pub granted: bool,
}

/// A PIN to which the answer of the token told nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unclear {
    pub pin: Option<Salted>,
    pub times: u32,
    /// Whether the token had accepted it before.
    pub was_accepted: bool,
    /// Whether the module was reloaded since.
    pub reloaded: bool,
    pub until: Instant,
}

impl Known {
    /// What an earlier process has left.
    pub fn new(counter: Salted, refused: Vec<Salted>) -> Known {
        Known {
            counter,
            refused,
            ..Known::default()
        }
    }
}

impl Counter {
    /// What an earlier process has left.
    pub fn new(refusals: u32, freed: bool) -> Counter {
        Counter {
            refusals,
            unclear: 0,
            freed,
            granted: false,
        }
    }
}

impl Unclear {
    /// Once more after a reload; where the token had accepted it before, whenever a pause is over.
    pub fn may_be_sent(&self, now: Instant) -> bool {
        let once_more = self.reloaded && self.times == 1;
        once_more || (self.was_accepted && now >= self.until)
    }
}
