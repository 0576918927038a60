//! A change takes a token for itself, and gives it back to those who wait.

use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::session::Session;

use super::{LOOK, Token};
use crate::error::Error;
use crate::token::module::Call;

/// How long a change waits for signatures that are being made, or for another change.
const DRAIN: Duration = Duration::from_secs(10);

/// A token that one request has for itself.
pub struct Taken<'t> {
    token: &'t Token,
    call: &'t Call<'t>,
}

impl Token {
    /// Takes the token for itself: no session is lent until it is given back, and none is in use.
    ///
    /// # Errors
    /// [`Error::Busy`] where those in use do not come back in time, or another change takes too long.
    pub fn take<'t>(&'t self, call: &'t Call<'_>) -> Result<Taken<'t>, Error> {
        call.about(&self.name, self.era(call));
        let end = Instant::now() + DRAIN;
        let mut inner = self.inner(call);
        while inner.taken && Instant::now() < end {
            inner = self.wait(inner, LOOK);
        }
        if inner.taken {
            return Err(self.busy());
        }
        inner.taken = true;
        let taken = Taken { token: self, call };
        while inner.lent > 0 && Instant::now() < end {
            inner = self.wait(inner, LOOK);
        }
        if inner.lent > 0 {
            drop(inner);
            return Err(self.busy());
        }
        Ok(taken)
    }

    fn busy(&self) -> Error {
        Error::Busy(format!("the token {} is in use; try again", self.name))
    }
}

impl Taken<'_> {
    /// Closes all sessions, and with them the login: the security officer's login and `C_InitToken`
    /// want none to be open (PKCS#11 sections 5.6.8 and 5.5).
    pub fn close_all(&self) {
        self.token.inner(self.call).renew(true);
    }

    /// The one session in which a change is made. One that is idle is closed where it takes the last
    /// place.
    ///
    /// # Errors
    /// What `C_OpenSession` said.
    pub fn open(&self) -> Result<Session, Error> {
        let (slot, spare) = {
            let mut inner = self.token.inner(self.call);
            let is_full = inner.open() >= inner.limit;
            (inner.slot, inner.idle.pop_if(|_| is_full))
        };
        if let Some(spare) = spare {
            spare.close()?;
        }
        let open = Pkcs11::open_rw_session_no_drop;
        self.token.open(self.call, slot, open)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut inner = self.token.inner(self.call);
        inner.taken = false;
        self.token.tell(inner);
    }
}
