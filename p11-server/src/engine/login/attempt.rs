//! A PIN that somebody wants to use, on which token, and what is told of both.

use std::time::Instant;

use super::digests::Salted;
use super::states::{Owner, Role, Tries};

/// One role on one token, and what counts its wrong tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub token: Salted,
    pub role: Role,
    pub counter: Salted,
    /// Whether the counter is that of a TPM.
    pub in_tpm: bool,
    /// The server's PIN for it, if the operator has set one.
    pub server: Option<Salted>,
    /// Whether other tokens may have that one, too.
    pub is_shared: bool,
}

/// A PIN that somebody wants to use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub owner: Owner,
    /// `None` is whatever is typed at a PIN pad.
    pub pin: Option<Salted>,
    /// With which PIN the token is logged in, if it is.
    pub open: Option<Salted>,
    pub tries: Tries,
    /// Whether other tokens are in the same TPM.
    pub shares_tpm: bool,
    /// Whether the request had the module reloaded and tries once more.
    pub is_retry: bool,
    pub now: Instant,
}

impl Attempt {
    /// One of this moment.
    pub fn new(owner: Owner, pin: Option<Salted>) -> Attempt {
        Attempt {
            owner,
            pin,
            open: None,
            tries: Tries::default(),
            shares_tpm: false,
            is_retry: false,
            now: Instant::now(),
        }
    }
}
