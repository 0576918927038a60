//! The trait between the daemon and the engine, so that the daemon can be tested without a token.

use p11_proto::{Request, Response};
use p11_uri::{ObjectInfo, TokenInfo};

use crate::error::Error;

/// What answers requests. Calls block, and may be made from many threads.
pub trait Service: Send + Sync {
    /// Does what a request asks for. Asks `access` about the token or key that it has chosen, before it
    /// does anything with it.
    ///
    /// # Errors
    /// Each failure says what happened and what to do, and has a code for programs.
    fn call(&self, request: &Request, access: &dyn Access) -> Result<Response, Error>;
}

/// Who asks, and whether they may touch what their request has led to.
pub trait Access {
    /// Asks about a token, and about an object on it where it is one that was chosen.
    ///
    /// # Errors
    /// [`Error::NotAllowed`]
    fn check(&self, token: &TokenInfo, object: Option<&ObjectInfo>) -> Result<(), Error>;

    /// The user id of who asks: users take turns.
    fn user(&self) -> u32 {
        0
    }

    /// The same for people.
    fn name(&self) -> String {
        format!("uid {}", self.user())
    }

    /// Whether a policy limits what users may do: then a PIN is changed by who brings the old one.
    fn is_restricted(&self) -> bool {
        false
    }

    /// Whether it may list all tokens, and so know what is wrong with any of them and with what the module needs.
    fn is_told_all(&self) -> bool {
        true
    }

    /// Whether nobody waits for the answer any more, so that a long request may end before its next call.
    fn has_left(&self) -> bool {
        false
    }
}

/// The access of a caller that is held to nothing.
pub struct Unrestricted;

impl Access for Unrestricted {
    fn check(&self, _: &TokenInfo, _: Option<&ObjectInfo>) -> Result<(), Error> {
        Ok(())
    }

    fn name(&self) -> String {
        "a request".into()
    }
}
