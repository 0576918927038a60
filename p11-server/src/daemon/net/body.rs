//! The bytes of one request, as many as its user may send of its kind.
//!
//! Most requests are short. Only a message to sign and a certificate to import may be long, and only of a user
//! who may ask for anything at all.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use p11_proto::frame::{self, Body};
use p11_proto::{Error, ErrorCode, Failure};

use super::budget::{Budget, Share};
use crate::daemon::peer::Peer;
use crate::daemon::policy::Policy;

/// The longest request but for those that may be long.
const SHORT: usize = 64 * 1024;

/// The longest of a user whom no rule allows anything: Ping and Status.
const NOTHING: usize = 64;

/// Why a request was not received.
pub(super) enum Unreceived {
    /// It could not be read.
    Unread(Error),
    /// It is refused, and its bytes stay unread.
    Refused(Failure),
}

impl Unreceived {
    /// Whether the time for it was over.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Unreceived::Unread(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut)
    }
}

impl fmt::Display for Unreceived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreceived::Unread(error) => error.fmt(f),
            Unreceived::Refused(failure) => failure.fmt(f),
        }
    }
}

impl From<Error> for Unreceived {
    fn from(error: Error) -> Self {
        Unreceived::Unread(error)
    }
}

/// What a user may send.
pub(super) struct Allowance<'a> {
    pub peer: &'a Peer,
    pub policy: &'a Policy,
    pub budget: &'a Arc<Budget>,
}

impl Allowance<'_> {
    /// The body of the next frame, and its share of the memory. `None` at the end.
    ///
    /// # Errors
    /// [`Unreceived`]
    pub fn read_frame(&self, reader: &mut impl Read) -> Result<Option<(Body, Share)>, Unreceived> {
        let mut share = self.budget.share(self.peer.uid);
        let body = frame::read_with(reader, |length, name| {
            let may_be_long = matches!(name, Some("Sign" | "ImportCertificate"));
            self.check(length, may_be_long, &mut share)
        })?;
        Ok(body.map(|body| (body, share)))
    }

    /// All that an old client sends.
    ///
    /// # Errors
    /// [`Unreceived`]
    pub fn read_tedge1(&self, reader: &mut impl Read) -> Result<(Body, Share), Unreceived> {
        let mut share = self.budget.share(self.peer.uid);
        let body = frame::read_to_end_with(reader, |so_far| {
            // The numbers of its two requests for a signature.
            let may_be_long = matches!(so_far.get(1), Some(2 | 5));
            self.check(so_far.len(), may_be_long, &mut share)
        })?;
        Ok((body, share))
    }

    fn check(&self, length: usize, may_be_long: bool, share: &mut Share) -> Result<(), Unreceived> {
        let Peer { uid, gid, .. } = *self.peer;
        let (code, message) = if length > NOTHING && !self.policy.allows_anything(uid, gid) {
            let message = format!(
                "a request of {length} bytes is not allowed: no rule of the policy is for uid {uid}"
            );
            (ErrorCode::NotAllowed, message)
        } else if length > SHORT && !may_be_long {
            let message = format!(
                "a request of {length} bytes is too long: {SHORT} at most, but for Sign and ImportCertificate"
            );
            (ErrorCode::BadFrame, message)
        } else if !share.grow_to(length) {
            let message = "long requests have taken all memory that is meant for them; try again";
            (ErrorCode::Busy, message.into())
        } else {
            return Ok(());
        };
        Err(Unreceived::Refused(Failure::new(code, message)))
    }
}
