//! Sessions that requests borrow for one turn: given back only where all went well.

use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::Function;
use cryptoki::error::RvError;
use cryptoki::mechanism::MechanismType;

use super::client::Client;
use super::mechanisms::Mechanisms;
use super::turns::{Lane, Turn};
use super::{Opened, Token};
use crate::engine::module::{Guard, Module, Place, Session, TokenFlags};
use crate::error::Error;

/// How long a wait for sessions that other programs have lasts before it is looked again.
const LOOK: Duration = Duration::from_millis(500);

/// A turn on a token, with a session of its life. Dropped, the session serves the next one, unless a call in
/// it has failed: then it is closed, since an operation may still be active in it.
pub(crate) struct PooledSession<'t> {
    token: &'t Arc<Token>,
    module: &'t Arc<Module>,
    life: Arc<Opened>,
    session: Option<Session>,
    /// Whether it is the one that is set aside for slow requests.
    main: bool,
    // In this order they end: the guard with the turn, when the session is given back.
    guard: Guard<'t>,
    turn: Arc<Turn>,
}

impl Token {
    /// Waits for a turn and takes a session, opening one where needed.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Timeout`], and what `C_OpenSession` said.
    pub fn acquire<'t>(
        self: &'t Arc<Self>,
        module: &'t Arc<Module>,
        client: &Client<'_>,
        lane: Lane,
    ) -> Result<PooledSession<'t>, Error> {
        loop {
            let (user, deadline) = (client.access.user(), client.deadline);
            let kept = client.take_turn().filter(|kept| kept.is_of(&self.turns));
            let turn = match kept {
                Some(kept) => kept.go_on(lane, deadline, self.name())?,
                None => self.turns.wait(lane, user, deadline, self.name())?,
            };
            let guard = module.guard(deadline)?;
            self.close_stale(deadline);
            let life = self.life();
            client.is_at(self, &life);
            match self.take_or_open(&guard, &life, lane, deadline) {
                Ok((session, main)) => {
                    session.serve_until(deadline);
                    let turn = Arc::new(turn);
                    if lane == Lane::Search {
                        client.keep_turn(&turn);
                    }
                    return Ok(PooledSession {
                        token: self,
                        module,
                        life,
                        session: Some(session),
                        main,
                        guard,
                        turn,
                    });
                }
                Err(error) if error.rv() == Some(RvError::SessionCount) => {}
                Err(error) => return Err(error),
            }
            // The token has fewer than it says, or other programs have them.
            let some_are_ours = self.turns.learn_limit();
            drop((guard, turn));
            if Instant::now() + LOOK > deadline {
                return Err(Error::Busy(format!(
                    "all sessions of the token {} are in use; try again",
                    self.name()
                )));
            }
            if !some_are_ours {
                thread::sleep(LOOK);
            }
        }
    }

    /// A session that lies idle, else a new one as soon as there is room for it; and whether it is the one of slow
    /// requests.
    fn take_or_open(
        &self,
        module: &Guard<'_>,
        life: &Arc<Opened>,
        lane: Lane,
        deadline: Instant,
    ) -> Result<(Session, bool), Error> {
        loop {
            // That there is but one session may be learned meanwhile.
            let main = lane != Lane::Sign || self.turns.has_one_session();
            if let Some(session) = life.take_session(main) {
                return Ok((session, main));
            }
            if self.turns.count_session() {
                return Ok((self.open(module, main)?, main));
            }
            // One for signatures makes room for the one of slow requests.
            if main && let Some(idle) = life.take_session(false) {
                idle.serve_until(deadline);
                self.close(idle);
                match self.is_current(life) {
                    true => continue,
                    false => {
                        return Err(Error::Changed {
                            token: self.name().into(),
                        });
                    }
                }
            }
            if !self.turns.wait_for_session(deadline) {
                return Err(Error::Timeout(format!(
                    "the token {} had no session left until the time was up; try again",
                    self.name()
                )));
            }
        }
    }

    /// Ends login and sessions, with nobody inside the module any more.
    pub fn close_all(&self, module: &Module) {
        let life = self.life();
        self.invalidate(&life);
        let sessions = self.take_stale();
        if module.is_ours()
            && life.is_logged_in()
            && let Some(session) = sessions.first()
        {
            let _ = session.logout();
        }
        for session in sessions {
            let _ = session.close();
        }
    }

    /// Closes what earlier lives have left. The caller has a guard.
    fn close_stale(&self, deadline: Instant) {
        for session in self.take_stale() {
            session.serve_until(deadline);
            self.close(session);
        }
    }

    /// Closes a session that was counted. With the last one the login has ended (PKCS#11 section 5.6.2).
    fn close(&self, session: Session) {
        if let Err(session) = session.close() {
            return self.close_later(session);
        }
        if self.turns.session_is_closed() {
            let life = self.life();
            if life.is_logged_in() {
                self.invalidate(&life);
            }
        }
    }

    /// Opens a session, which was counted, that is sure to lead to this token: slots are renumbered when readers come and
    /// go, and one that was right before and after was right in between.
    fn open(&self, module: &Guard<'_>, read_write: bool) -> Result<Session, Error> {
        let place = self.place();
        let opened = self.expect_in(module, &place).and_then(|()| {
            let opened = module.open_session(&place, read_write);
            match &opened {
                Err(error) if read_write && error.rv() == Some(RvError::TokenWriteProtected) => {
                    module.open_session(&place, false)
                }
                _ => opened,
            }
        });
        let session = opened.inspect_err(|_| {
            self.turns.session_is_closed();
        })?;
        match self.expect_in(module, &place) {
            Ok(()) => Ok(session),
            Err(error) => {
                self.close(session);
                Err(error)
            }
        }
    }

    fn expect_in(&self, module: &Guard<'_>, place: &Place) -> Result<(), Error> {
        match self.id().is_of(&module.token_flags(place)?) {
            true => Ok(()),
            false => Err(Error::Module {
                rv: RvError::TokenNotRecognized,
                function: Function::OpenSession,
            }),
        }
    }
}

impl<'t> PooledSession<'t> {
    /// The token.
    pub fn token(&self) -> &'t Arc<Token> {
        self.token
    }

    /// What is made in the session is good as long as its token has this life.
    pub fn life(&self) -> &Arc<Opened> {
        &self.life
    }

    /// The module.
    pub fn module(&self) -> &'t Arc<Module> {
        self.module
    }

    /// Whether the life that it was made in lasts.
    pub fn is_current(&self) -> bool {
        self.token.is_current(&self.life)
    }

    /// `C_GetTokenInfo`: what the token says of itself now.
    pub fn token_flags(&self) -> Result<TokenFlags, Error> {
        self.guard.token_flags(self.place())
    }

    /// What the token can do, asked once in a life.
    pub fn mechanisms(&self) -> Result<Arc<Mechanisms>, Error> {
        if let Some(known) = self.life.mechanisms() {
            return Ok(known);
        }
        let mechanisms = Arc::new(Mechanisms::read(&self.guard, self.place())?);
        self.life.set_mechanisms(mechanisms.clone());
        Ok(mechanisms)
    }

    /// `C_GetMechanismList`: whether the token lists a mechanism.
    pub fn lists(&self, how: MechanismType) -> Result<bool, Error> {
        Ok(self.guard.mechanisms(self.place())?.contains(&how))
    }

    /// Opens a session for signatures, where none is there yet: the first one need not wait for it. That this
    /// fails is of no importance.
    pub fn prepare_signing(&self) {
        let turns = &self.token.turns;
        if turns.has_one_session() || self.life.has_idle() || !turns.count_session() {
            return;
        }
        if let Ok(session) = self.token.open(&self.guard, false)
            && let Some(stale) = self.token.put_back(&self.life, session, false)
        {
            self.token.close(stale);
        }
    }

    /// Whether the process is still logged in, by the word of the module too. A login that was lost is given
    /// up.
    ///
    /// # Errors
    /// What `C_GetSessionInfo` said.
    pub fn still_logged_in(&self) -> Result<bool, Error> {
        let now = self.user_is_logged_in()?;
        if !now {
            self.token.invalidate(&self.life);
        }
        Ok(now && self.is_current())
    }

    /// Gives up all that is open on the token, waits for the signatures that are being made, and opens one
    /// session alone: with the others the login ends, as the security officer's login wants it (PKCS#11
    /// section 5.6.8).
    ///
    /// # Errors
    /// [`Error::Timeout`], and what `C_OpenSession` said.
    pub fn reopen_alone(&mut self, client: &Client<'_>) -> Result<(), Error> {
        self.turn
            .close_signatures(client.deadline, self.token.name())?;
        self.token.invalidate(&self.life);
        if let Some(session) = self.session.take() {
            self.token.close(session);
        }
        self.token.close_stale(client.deadline);
        self.life = self.token.life();
        client.is_at(self.token, &self.life);
        let opened = self
            .token
            .take_or_open(&self.guard, &self.life, Lane::Slow, client.deadline);
        let (session, main) = opened.map_err(|error| match error.rv() {
            Some(RvError::SessionCount) => Error::Busy(format!(
                "the token {} has no session left for a change (CKR_SESSION_COUNT), and none of them \
                 is this server's; end other programs that use it and try again",
                self.token.name()
            )),
            _ => error,
        })?;
        (self.session, self.main) = (Some(session), main);
        Ok(())
    }
}

impl Deref for PooledSession<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        // Emptied by `drop`, and by `reopen_alone` when that fails, which ends the request.
        match &self.session {
            Some(session) => session,
            None => unreachable!("a pooled session holds its session until it is dropped"),
        }
    }
}

impl Drop for PooledSession<'_> {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        if !session.has_failed() && !thread::panicking() {
            match self.token.put_back(&self.life, session, self.main) {
                Some(stale) => session = stale,
                None => return,
            }
        }
        self.token.close(session);
    }
}
