//! A token that one change has for itself.

use std::time::Instant;

use cryptoki::context::Pkcs11;
use cryptoki::session::Session;

use super::{LOOK, Token, is_full};
use crate::engine::module::Call;
use crate::error::Error;

/// A token that one request has for itself.
pub(crate) struct Exclusive<'t> {
    token: &'t Token,
    call: &'t Call<'t>,
}

impl Token {
    /// Takes the token for itself: no session is in_use until it is given back, and none is in use.
    ///
    /// # Errors
    /// [`Error::Busy`] where those in use do not come back in time, or another change takes too long.
    pub fn lock_exclusively<'t>(&'t self, call: &'t Call<'_>) -> Result<Exclusive<'t>, Error> {
        call.set_token(&self.name, self.era(call));
        let end = Instant::now() + call.timeouts().change;
        let mut inner = self.inner(call);
        while inner.exclusive && Instant::now() < end {
            inner = self.wait(inner, LOOK);
        }
        if inner.exclusive {
            return Err(self.busy());
        }
        inner.exclusive = true;
        let exclusive = Exclusive { token: self, call };
        while inner.in_use > 0 && Instant::now() < end {
            inner = self.wait(inner, LOOK);
        }
        if inner.in_use > 0 {
            drop(inner);
            return Err(self.busy());
        }
        Ok(exclusive)
    }

    fn busy(&self) -> Error {
        Error::Busy(format!("the token {} is in use; try again", self.name))
    }
}

impl Exclusive<'_> {
    /// The session in which a change is made, beside the one that keeps the login. Those that are
    /// idle make room for it.
    ///
    /// # Errors
    /// What `C_OpenSession` said; where that [`is_full`], [`Exclusive::open_alone`] is left.
    pub fn open(&self) -> Result<Session, Error> {
        loop {
            let opened = self.open_to_write();
            let spare = match &opened {
                Err(error) if is_full(error) => self.token.inner(self.call).idle.pop(),
                _ => None,
            };
            match spare {
                Some(spare) => spare.close()?,
                None => return opened,
            }
        }
    }

    /// The session in which a change is made where no other may be open, or has room: with the others
    /// the login ends. The security officer's login wants it so (PKCS#11 section 5.6.8).
    ///
    /// # Errors
    /// [`Error::Busy`] where other programs have all sessions, else what `C_OpenSession` said.
    pub fn open_alone(&self) -> Result<Session, Error> {
        self.token.inner(self.call).start_new_life(true);
        self.open_to_write().map_err(|error| match is_full(&error) {
            true => Error::Busy(format!(
                "the token {} has no session left for a change (CKR_SESSION_COUNT), and none of them \
                 is this server's; end other programs that use it and try again",
                self.token.name
            )),
            false => error,
        })
    }

    fn open_to_write(&self) -> Result<Session, Error> {
        let slot = self.token.slot();
        let open = Pkcs11::open_rw_session_no_drop;
        self.token.open(self.call, slot, open)
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        let mut inner = self.token.inner(self.call);
        inner.exclusive = false;
        self.token.notify(inner);
    }
}
