//! Who waits for the engine, until when, and where its request is.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use super::{Opened, Token};
use crate::error::Error;
use crate::service::Access;

/// A client whose request is at work, in this thread.
pub(crate) struct Client<'a> {
    /// What it may touch, who it is, whether it has left.
    pub access: &'a dyn Access,
    /// Until when it waits.
    pub deadline: Instant,
    /// The token, and the life of it, that the request was last about.
    at: RefCell<Option<(Arc<Token>, Arc<Opened>)>>,
}

impl<'a> Client<'a> {
    /// A client whose request has just come.
    pub fn new(access: &'a dyn Access, deadline: Instant) -> Client<'a> {
        Client {
            access,
            deadline,
            at: RefCell::default(),
        }
    }

    /// Whether there is still somebody who waits, asked before each call of a request that makes many.
    ///
    /// # Errors
    /// [`Error::Timeout`]
    pub fn still_waits(&self) -> Result<(), Error> {
        if self.access.has_left() {
            return Err(Error::Timeout("the client has left".into()));
        }
        if Instant::now() >= self.deadline {
            return Err(Error::Timeout(
                "the request took longer than its time; name the token and the key to make it quicker"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The request is about this token now.
    pub fn is_at(&self, token: &Arc<Token>, life: &Arc<Opened>) {
        *self.at.borrow_mut() = Some((token.clone(), life.clone()));
    }

    /// The token that the request was last about, in which life of it.
    pub fn take_place(&self) -> Option<(Arc<Token>, Arc<Opened>)> {
        self.at.borrow_mut().take()
    }
}
