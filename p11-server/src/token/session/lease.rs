//! A request borrows a session, and gives it back only if all went well.

use std::ops::Deref;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::session::{Session, SessionState};

use super::taken::Taken;
use super::{Era, Inner, LOOK, Token, is_full};
use crate::error::Error;
use crate::token::module::Call;

/// How long a request waits for a session: a little less than its deadline of 30 s, so that the
/// client learns what it waited for.
const PATIENCE: Duration = Duration::from_secs(28);

/// A session for one operation. Dropped without [`Lease::finish`], it is closed: an operation may
/// still be active in it.
pub struct Lease<'t> {
    token: &'t Token,
    call: &'t Call<'t>,
    era: Era,
    session: Option<Session>,
    keeper: bool,
    clean: bool,
    /// Where a change is made in it: given back after the session is closed.
    taken: Option<Taken<'t>>,
}

impl Token {
    /// Borrows a session, opening one or waiting for one where needed.
    ///
    /// # Errors
    /// [`Error::Busy`] when none became free in time, else what `C_OpenSession` said.
    pub fn lend<'t>(&'t self, call: &'t Call<'_>) -> Result<Lease<'t>, Error> {
        call.about(&self.name, self.era(call));
        let patience = Instant::now() + PATIENCE;
        let mut inner = self.inner(call);
        loop {
            let free = !inner.taken;
            if free && let Some(session) = inner.idle.pop() {
                return Ok(self.lease(inner, session, false, call));
            }
            if free && inner.open() < inner.limit {
                inner.lent += 1;
                let slot = inner.slot;
                drop(inner);
                let opened = self.open(call, slot, Pkcs11::open_ro_session_no_drop);
                inner = self.inner(call);
                inner.lent -= 1;
                match opened {
                    Ok(session) => return Ok(self.lease(inner, session, false, call)),
                    // The token has fewer than it says, or other programs have them.
                    Err(error) if is_full(&error) => inner.limit = inner.open().max(1),
                    Err(error) => return Err(error),
                }
            }
            if free && let Some(keeper) = inner.keeper.take() {
                return Ok(self.lease(inner, keeper, true, call));
            }
            if Instant::now() > patience {
                return Err(Error::Busy(format!(
                    "all sessions of the token {} are in use; try again",
                    self.name
                )));
            }
            inner = self.wait(inner, LOOK);
        }
    }

    /// Takes the token for one change in a read/write session. The login of the others is good in it
    /// as well.
    ///
    /// # Errors
    /// As [`Token::take`] and [`Taken::open`].
    pub fn lend_to_write<'t>(&'t self, call: &'t Call<'_>) -> Result<Lease<'t>, Error> {
        let taken = self.take(call)?;
        let session = taken.open()?;
        let mut lease = self.lease(self.inner(call), session, false, call);
        lease.taken = Some(taken);
        Ok(lease)
    }

    /// The same in the only session that is open on the token, and that nobody is logged in to yet.
    /// Once finished it stays, and keeps the login.
    ///
    /// # Errors
    /// As [`Token::take`] and [`Taken::open_alone`].
    pub fn lend_to_write_alone<'t>(&'t self, call: &'t Call<'_>) -> Result<Lease<'t>, Error> {
        let taken = self.take(call)?;
        let session = taken.open_alone()?;
        let mut lease = self.lease(self.inner(call), session, true, call);
        lease.taken = Some(taken);
        Ok(lease)
    }

    /// Makes sure that a session stays open on the token, so that its login lasts.
    pub fn keep(&self, call: &Call<'_>) -> Result<(), Error> {
        if self.inner(call).keeper.is_some() {
            return Ok(());
        }
        let mut lease = self.lend(call)?;
        lease.keeper = true;
        lease.finish();
        Ok(())
    }

    /// Makes sure that sessions and login are what we think they are; gives them up if not. Who uses
    /// a session at this moment finds out by itself.
    pub fn verify(&self, call: &Call<'_>) {
        let mut inner = self.inner(call);
        if inner.taken {
            return;
        }
        let (session, keeper) = match inner.idle.pop() {
            Some(session) => (session, false),
            None => match inner.keeper.take() {
                Some(keeper) => (keeper, true),
                None => return,
            },
        };
        let session = self.lease(inner, session, keeper, call);
        let answers = match session.logged_in() {
            true => session.still_logged_in(),
            false => session.logged_in_now(),
        };
        match answers {
            Ok(_) => session.finish(),
            Err(_) => self.give_up(call, session.era),
        }
    }

    fn lease<'t>(
        &'t self,
        mut inner: MutexGuard<'_, Inner>,
        session: Session,
        keeper: bool,
        call: &'t Call<'_>,
    ) -> Lease<'t> {
        inner.lent += 1;
        Lease {
            token: self,
            call,
            era: inner.era(),
            session: Some(session),
            keeper,
            taken: None,
            clean: false,
        }
    }
}

impl Lease<'_> {
    /// What is made in the session is good as long as its token says the same.
    pub fn era(&self) -> Era {
        self.era
    }

    /// Whether the process is logged in, as far as we know.
    pub fn logged_in(&self) -> bool {
        let inner = self.token.inner(self.call);
        inner.era() == self.era && inner.logged_in
    }

    /// Whether it is, by the word of the module too. A login that was lost is given up.
    ///
    /// # Errors
    /// What `C_GetSessionInfo` said.
    pub fn still_logged_in(&self) -> Result<bool, Error> {
        let now = self.logged_in_now()?;
        if !now {
            self.token.give_up(self.call, self.era);
        }
        Ok(now && self.logged_in())
    }

    fn logged_in_now(&self) -> Result<bool, Error> {
        let state = self.get_session_info()?.session_state();
        Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
    }

    /// The operation ended cleanly; the session can serve the next one.
    pub fn finish(mut self) {
        self.clean = true;
    }
}

impl Deref for Lease<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        // Emptied by `drop` alone.
        match &self.session {
            Some(session) => session,
            None => unreachable!("a lease holds its session until it is dropped"),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let mut inner = self.token.inner(self.call);
        // One that was opened beside others for a change is closed: the pool is for signing.
        let is_needed = self.keeper || self.taken.is_none();
        if self.clean && is_needed && inner.era() == self.era {
            if self.keeper && inner.keeper.is_none() {
                inner.keeper = Some(session);
            } else {
                inner.idle.push(session);
            }
        } else {
            // Closed with the lock given back: it is a call of the module.
            drop(inner);
            let _ = session.close();
            inner = self.token.inner(self.call);
        }
        inner.lent = inner.lent.saturating_sub(1);
        // With the last session the login has ended (PKCS#11 section 5.6.2).
        if inner.logged_in && inner.open() == 0 {
            inner.renew(true);
        }
        self.token.tell(inner);
    }
}
