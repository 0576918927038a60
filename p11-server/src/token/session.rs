//! One token and its sessions: a request borrows one, and gives it back only if all went well.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::{Function, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::{Limit, Slot, TokenInfo};
use p11_uri::{TokenFacts, Uri};

use super::lock;
use super::login::{Accepted, Login};
use super::module::Call;
use super::schemes::Mechanisms;
use super::slots::TokenId;
use crate::error::Error;

/// Sessions that we keep on one token: more callers than that wait for each other.
const MOST_SESSIONS: usize = 9;

/// How long a request waits for a session: a little less than its deadline of 30 s, so that the
/// client learns what it waited for.
const PATIENCE: Duration = Duration::from_secs(28);

/// How long a wait lasts before it is looked again: other programs may have given sessions back.
const LOOK: Duration = Duration::from_millis(500);

/// How long a change waits for signatures that are being made, or for another change.
const DRAIN: Duration = Duration::from_secs(10);

/// A token that was seen at least once, and what we hold open on it.
pub struct Token {
    id: TokenId,
    name: String,
    inner: Mutex<Inner>,
    freed: Condvar,
    /// Locked before `inner` where both are needed.
    pub(super) login: Mutex<Login>,
    /// Locked during each `C_Login`; who holds it waits for no session.
    pub(super) accepted: Mutex<Option<Accepted>>,
}

struct Inner {
    slot: Slot,
    facts: Arc<TokenFacts>,
    info: TokenInfo,
    mechanisms: Option<Arc<Mechanisms>>,
    /// Of the module, as of the last call.
    epoch: u64,
    /// Goes up whenever all that we hold on the token is given up.
    generation: u64,
    /// Keeps the login alive while others come and go. Lent only where there is no other.
    keeper: Option<Session>,
    idle: Vec<Session>,
    lent: usize,
    limit: usize,
    /// Somebody has the token for itself.
    taken: bool,
    /// Whether the process is logged in, as far as we know.
    logged_in: bool,
    /// When the slots were last listed it was in none of them.
    gone: bool,
    /// How many wait for any of this to change.
    waiting: usize,
}

/// When sessions and handles were made. They are good as long as the token still says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Era {
    pub epoch: u64,
    generation: u64,
}

impl Token {
    /// A token found in a slot.
    pub fn new(id: TokenId, slot: Slot, facts: TokenFacts, info: TokenInfo) -> Token {
        Token {
            id,
            name: Uri::of_token(&facts).to_string(),
            inner: Mutex::new(Inner {
                slot,
                facts: Arc::new(facts),
                mechanisms: None,
                epoch: 0,
                generation: 0,
                keeper: None,
                idle: Vec::new(),
                lent: 0,
                limit: limit(&info),
                taken: false,
                logged_in: false,
                gone: false,
                waiting: 0,
                info,
            }),
            freed: Condvar::new(),
            login: Mutex::new(Login::Out),
            accepted: Mutex::new(None),
        }
    }

    /// What tells it from other tokens, and from a later one in its place.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// Its URI, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it said of itself when the slots were last listed.
    pub fn facts(&self) -> Arc<TokenFacts> {
        lock(&self.inner).facts.clone()
    }

    /// Flags and limits from when the slots were last listed.
    pub fn info(&self) -> TokenInfo {
        lock(&self.inner).info.clone()
    }

    /// Whether it wanted a login when the slots were last listed.
    pub fn login_required(&self) -> bool {
        lock(&self.inner).info.login_required()
    }

    /// The slot that it was last seen in.
    pub fn slot(&self) -> Slot {
        lock(&self.inner).slot
    }

    /// The slots were listed and this token is in one of them.
    pub fn seen(&self, call: &Call<'_>, slot: Slot, facts: TokenFacts, info: TokenInfo) {
        let mut inner = self.inner(call);
        if std::mem::take(&mut inner.gone) {
            inner.renew(true);
        }
        inner.slot = slot;
        inner.facts = Arc::new(facts);
        inner.limit = limit(&info);
        inner.info = info;
    }

    /// The slots were listed and this token is in none of them. It was `era` before.
    pub fn gone(&self, call: &Call<'_>, era: Era) {
        let mut inner = self.inner(call);
        if inner.era() == era {
            inner.renew(true);
            inner.gone = true;
            self.tell(inner);
        }
    }

    /// The era of this call: what is made now carries it.
    pub fn era(&self, call: &Call<'_>) -> Era {
        self.inner(call).era()
    }

    /// What the token can do, asked once per era.
    pub fn mechanisms(&self, call: &Call<'_>) -> Result<Arc<Mechanisms>, Error> {
        let (known, slot) = {
            let inner = self.inner(call);
            (inner.mechanisms.clone(), inner.slot)
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let mechanisms = Arc::new(Mechanisms::read(call.pkcs11(), slot)?);
        self.inner(call).mechanisms = Some(mechanisms.clone());
        Ok(mechanisms)
    }

    /// The process has logged in, in a session of this era.
    pub fn note_login(&self, call: &Call<'_>, era: Era) {
        let mut inner = self.inner(call);
        if inner.era() == era {
            inner.logged_in = true;
        }
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

    /// Gives up sessions, login and handles of an era in which something was found broken. Once:
    /// who comes later with the same era has nothing to give up any more.
    pub fn give_up(&self, call: &Call<'_>, broken: Era) {
        let mut inner = self.inner(call);
        if inner.era() == broken {
            inner.renew(true);
            self.tell(inner);
        }
    }

    /// Ends login and sessions, with nobody at work on the token.
    pub fn log_out(&self, call: &Call<'_>) {
        let mut inner = self.inner(call);
        if inner.logged_in
            && let Some(session) = inner.keeper.as_ref().or(inner.idle.first())
        {
            let _ = session.logout();
        }
        inner.renew(true);
    }

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
                    Err(Error::Module {
                        rv: RvError::SessionCount,
                        ..
                    }) => inner.limit = inner.open().max(1),
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

    /// Waits until something changes on the token, or for a while.
    fn wait<'g>(&self, mut inner: MutexGuard<'g, Inner>, time: Duration) -> MutexGuard<'g, Inner> {
        inner.waiting += 1;
        let waited = self.freed.wait_timeout(inner, time);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        inner.waiting -= 1;
        inner
    }

    /// Something has changed on the token. Nearly always nobody waits for it, and nothing is called.
    fn tell(&self, inner: MutexGuard<'_, Inner>) {
        if inner.waiting > 0 {
            self.freed.notify_all();
        }
    }

    /// Takes the token for one change in a read/write session. The others' sessions stay open, and
    /// their login is good in it as well.
    ///
    /// # Errors
    /// As [`Token::take`], and what `C_OpenSession` said.
    pub fn lend_to_write<'t>(&'t self, call: &'t Call<'_>) -> Result<Lease<'t>, Error> {
        let taken = self.take(call)?;
        let session = taken.open()?;
        // Never finished, it is closed after use: the pool is for signing.
        let mut lease = self.lease(self.inner(call), session, false, call);
        lease.taken = Some(taken);
        Ok(lease)
    }

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

    /// Opens a session that is sure to lead to this token: slots are renumbered when readers come and
    /// go, and one that was right before and after was right in between.
    fn open(
        &self,
        call: &Call<'_>,
        slot: Slot,
        open: fn(&Pkcs11, Slot) -> cryptoki::error::Result<Session>,
    ) -> Result<Session, Error> {
        self.expect_in(call, slot)?;
        let session = open(call.pkcs11(), slot)?;
        match self.expect_in(call, slot) {
            Ok(()) => Ok(session),
            Err(error) => {
                let _ = session.close();
                Err(error)
            }
        }
    }

    fn expect_in(&self, call: &Call<'_>, slot: Slot) -> Result<(), Error> {
        match self.id.is_of(&call.pkcs11().get_token_info(slot)?) {
            true => Ok(()),
            false => Err(Error::Module {
                rv: RvError::TokenNotRecognized,
                function: Function::OpenSession,
            }),
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

    /// The token's state, brought to the epoch of the call.
    fn inner(&self, call: &Call<'_>) -> MutexGuard<'_, Inner> {
        let mut inner = lock(&self.inner);
        if inner.epoch != call.epoch() {
            inner.epoch = call.epoch();
            // Nothing of an earlier epoch may be closed: its numbers belong to others now.
            inner.renew(false);
        }
        inner
    }
}

impl Inner {
    fn era(&self) -> Era {
        Era {
            epoch: self.epoch,
            generation: self.generation,
        }
    }

    /// Sessions that count against the token's limit.
    fn open(&self) -> usize {
        self.idle.len() + self.lent + usize::from(self.keeper.is_some())
    }

    fn renew(&mut self, close: bool) {
        self.generation += 1;
        self.logged_in = false;
        self.mechanisms = None;
        self.limit = limit(&self.info);
        for session in self.idle.drain(..).chain(self.keeper.take()) {
            if close {
                let _ = session.close();
            }
        }
        if !close {
            self.lent = 0;
        }
    }
}

/// A token that one request has for itself.
pub struct Taken<'t> {
    token: &'t Token,
    call: &'t Call<'t>,
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
        if self.clean && inner.era() == self.era {
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
        self.token.tell(inner);
    }
}

/// How many sessions we may have open on the token.
fn limit(info: &TokenInfo) -> usize {
    match info.max_session_count() {
        Limit::Max(most) => usize::try_from(most)
            .unwrap_or(MOST_SESSIONS)
            .clamp(1, MOST_SESSIONS),
        Limit::Unavailable | Limit::Infinite => MOST_SESSIONS,
    }
}
