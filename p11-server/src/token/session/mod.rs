//! One token: what it says of itself, and what we hold open on it.
//!
//! | room | its job |
//! |---|---|
//! | `lease` | one session, borrowed for one operation |
//! | `taken` | the whole token, taken for one change |

mod lease;
mod taken;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cryptoki::context::{Function, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::session::Session;
use cryptoki::slot::{Limit, Slot, TokenInfo};
use p11_uri::{TokenFacts, Uri};

use super::lock;
use super::login::{Accepted, Login};
use super::module::Call;
use super::schemes::Mechanisms;
use super::slots::TokenId;
use crate::error::Error;

pub use self::lease::Lease;

/// Sessions that we keep on one token: more callers than that wait for each other.
const MOST_SESSIONS: usize = 9;

/// How long a wait lasts before it is looked again: other programs may have given sessions back.
const LOOK: Duration = Duration::from_millis(500);

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

/// Whether the token has no session left to open.
pub fn is_full(error: &Error) -> bool {
    error.rv() == Some(RvError::SessionCount)
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
