//! Sessions that requests borrow: given back only where all went well.

use std::ops::Deref;
use std::sync::MutexGuard;
use std::time::Instant;

use cryptoki::context::Pkcs11;
use cryptoki::session::{Session, SessionState};

use super::exclusive::Exclusive;
use super::{Inner, LOOK, Token, is_full};
use crate::engine::module::Call;
use crate::engine::module::Era;
use crate::error::Error;

/// A session for one operation. Dropped without [`PooledSession::finish`], it is closed: an operation may
/// still be active in it.
pub(crate) struct PooledSession<'t> {
    token: &'t Token,
    call: &'t Call<'t>,
    era: Era,
    session: Option<Session>,
    login_session: bool,
    clean: bool,
    /// Where a change is made in it: given back after the session is closed.
    exclusive: Option<Exclusive<'t>>,
}

impl Token {
    /// Borrows a session, opening one or waiting for one where needed.
    ///
    /// # Errors
    /// [`Error::Busy`] when none became free in time, else what `C_OpenSession` said.
    pub fn acquire<'t>(&'t self, call: &'t Call<'_>) -> Result<PooledSession<'t>, Error> {
        call.set_token(&self.name, self.era(call));
        let give_up = Instant::now() + call.timeouts().session;
        let mut inner = self.inner(call);
        loop {
            let free = !inner.exclusive;
            if free && let Some(session) = inner.idle.pop() {
                return Ok(self.lend(inner, session, false, call));
            }
            if free && inner.open() < inner.limit {
                inner.in_use += 1;
                let slot = inner.slot;
                drop(inner);
                let opened = self.open(call, slot, Pkcs11::open_ro_session_no_drop);
                inner = self.inner(call);
                inner.in_use -= 1;
                match opened {
                    Ok(session) => return Ok(self.lend(inner, session, false, call)),
                    // The token has fewer than it says, or other programs have them.
                    Err(error) if is_full(&error) => inner.limit = inner.open().max(1),
                    Err(error) => return Err(error),
                }
            }
            if free && let Some(login_session) = inner.login_session.take() {
                return Ok(self.lend(inner, login_session, true, call));
            }
            if Instant::now() > give_up {
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
    /// As [`Token::take`] and [`Exclusive::open`].
    pub fn acquire_to_write<'t>(&'t self, call: &'t Call<'_>) -> Result<PooledSession<'t>, Error> {
        let exclusive = self.lock_exclusively(call)?;
        let session = exclusive.open()?;
        let mut session = self.lend(self.inner(call), session, false, call);
        session.exclusive = Some(exclusive);
        Ok(session)
    }

    /// The same in the only session that is open on the token, and that nobody is logged in to yet.
    /// Once finished it stays, and keeps the login.
    ///
    /// # Errors
    /// As [`Token::take`] and [`Exclusive::open_alone`].
    pub fn acquire_alone<'t>(&'t self, call: &'t Call<'_>) -> Result<PooledSession<'t>, Error> {
        let exclusive = self.lock_exclusively(call)?;
        let session = exclusive.open_alone()?;
        let mut session = self.lend(self.inner(call), session, true, call);
        session.exclusive = Some(exclusive);
        Ok(session)
    }

    /// Makes sure that a session stays open on the token, so that its login lasts.
    pub fn keep_login_session(&self, call: &Call<'_>) -> Result<(), Error> {
        if self.inner(call).login_session.is_some() {
            return Ok(());
        }
        let mut session = self.acquire(call)?;
        session.login_session = true;
        session.finish();
        Ok(())
    }

    /// Makes sure that sessions and login are what we think they are; gives them up if not. Who uses
    /// a session at this moment finds out by itself.
    pub fn verify(&self, call: &Call<'_>) {
        let mut inner = self.inner(call);
        if inner.exclusive {
            return;
        }
        let (session, login_session) = match inner.idle.pop() {
            Some(session) => (session, false),
            None => match inner.login_session.take() {
                Some(login_session) => (login_session, true),
                None => return,
            },
        };
        let session = self.lend(inner, session, login_session, call);
        let answers = match session.logged_in() {
            true => session.still_logged_in(),
            false => session.logged_in_now(),
        };
        match answers {
            Ok(_) => session.finish(),
            Err(_) => self.invalidate(call, session.era),
        }
    }

    fn lend<'t>(
        &'t self,
        mut inner: MutexGuard<'_, Inner>,
        session: Session,
        login_session: bool,
        call: &'t Call<'_>,
    ) -> PooledSession<'t> {
        inner.in_use += 1;
        PooledSession {
            token: self,
            call,
            era: inner.era(),
            session: Some(session),
            login_session,
            exclusive: None,
            clean: false,
        }
    }
}

impl PooledSession<'_> {
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
            self.token.invalidate(self.call, self.era);
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

impl Deref for PooledSession<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        // Emptied by `drop` alone.
        match &self.session {
            Some(session) => session,
            None => unreachable!("a pooled session holds its session until it is dropped"),
        }
    }
}

impl Drop for PooledSession<'_> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let mut inner = self.token.inner(self.call);
        // One that was opened beside others for a change is closed: the pool is for signing.
        let is_needed = self.login_session || self.exclusive.is_none();
        if self.clean && is_needed && inner.era() == self.era {
            if self.login_session && inner.login_session.is_none() {
                inner.login_session = Some(session);
            } else {
                inner.idle.push(session);
            }
        } else {
            // Closed with the lock given back: it is a call of the module.
            drop(inner);
            let _ = session.close();
            inner = self.token.inner(self.call);
        }
        inner.in_use = inner.in_use.saturating_sub(1);
        // With the last session the login has ended (PKCS#11 section 5.6.2).
        if inner.logged_in && inner.open() == 0 {
            inner.start_new_life(true);
        }
        self.token.notify(inner);
    }
}
