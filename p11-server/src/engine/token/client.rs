//! Who waits for the engine, until when, and where its request is.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use super::id::TokenId;
use super::turns::Turn;
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
    /// The turn of its last search: until the key that was found has signed, nobody shall change its token.
    search: RefCell<Option<Arc<Turn>>>,
    /// The tokens that are logged in with the request's own PIN, compared once in a request.
    matched: RefCell<Vec<TokenId>>,
    /// Whether the request has had the module reloaded, and tries once more.
    reloaded: Cell<bool>,
}

impl<'a> Client<'a> {
    /// A client whose request has just come.
    pub fn new(access: &'a dyn Access, deadline: Instant) -> Client<'a> {
        Client {
            access,
            deadline,
            at: RefCell::default(),
            search: RefCell::default(),
            matched: RefCell::default(),
            reloaded: Cell::new(false),
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
                "the request took longer than its time, since its token was slow or others had it; try again"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Keeps the turn of a search for what the request does next.
    pub fn keep_turn(&self, turn: &Arc<Turn>) {
        *self.search.borrow_mut() = Some(turn.clone());
    }

    /// What was kept. It ends where it is dropped, before any wait for another one.
    pub fn take_turn(&self) -> Option<Turn> {
        Arc::into_inner(self.search.borrow_mut().take()?)
    }

    /// The request is about this token now.
    pub fn is_at(&self, token: &Arc<Token>, life: &Arc<Opened>) {
        *self.at.borrow_mut() = Some((token.clone(), life.clone()));
    }

    /// The request's own PIN is the one of this token.
    pub fn set_matched(&self, token: &Token) {
        self.matched.borrow_mut().push(token.id().clone());
    }

    /// Whether the request's own PIN was found to be the one of this token.
    pub fn has_matched(&self, token: &Token) -> bool {
        self.matched.borrow().contains(token.id())
    }

    /// The request has had the module reloaded, and tries once more.
    pub fn set_reloaded(&self) {
        self.forget_logins();
        self.reloaded.set(true);
    }

    /// No token is logged in any more.
    pub fn forget_logins(&self) {
        self.matched.borrow_mut().clear();
    }

    /// Whether the request has had the module reloaded, and tries once more.
    pub fn has_reloaded(&self) -> bool {
        self.reloaded.get()
    }

    /// The token that the request was last about, in which life of it.
    pub fn take_place(&self) -> Option<(Arc<Token>, Arc<Opened>)> {
        self.at.borrow_mut().take()
    }
}
