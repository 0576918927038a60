//! One token: what it says of itself, and what we hold open on it.

pub mod exclusive;
pub mod id;
pub mod mechanisms;
pub mod session;
pub mod slots;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::{Function, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::session::Session;
use cryptoki::slot::{self, Limit, Slot};
use p11_proto::Pin;
use p11_uri::{TokenInfo, Uri};

use self::id::TokenId;
use self::mechanisms::Mechanisms;
use crate::engine::module::{Call, Era};
use crate::error::Error;
use crate::lock::lock;

/// Sessions that we keep on one token: more callers than that wait for each other.
const MOST_SESSIONS: usize = 9;

/// How long a wait lasts before it is looked again: other programs may have given sessions back.
const LOOK: Duration = Duration::from_millis(500);

/// A token that was seen at least once, and what we hold open on it.
pub(crate) struct Token {
    id: TokenId,
    name: String,
    inner: Mutex<Inner>,
    freed: Condvar,
    /// Locked before `inner` where both are needed.
    pub login: Mutex<Login>,
    /// Locked during each `C_Login`; who holds it waits for no session.
    pub accepted: Mutex<Option<Accepted>>,
}

/// Whether the process is logged in to a token, which PKCS#11 shares among all its sessions
/// (section 5.6.8).
pub(crate) enum Login {
    /// It is not, as far as we know.
    Out,
    /// Since this era, with this PIN; `None` for a PIN pad.
    In(Era, Option<Pin>),
}

/// The last PIN that a token has accepted, as a keyed digest, and when.
pub(crate) struct Accepted {
    pub pin: PinDigest,
    pub at: Instant,
}

/// A PIN for one role on one token, as only this process can tell it again.
pub(crate) type PinDigest = [u8; 32];

pub(super) struct Inner {
    slot: Slot,
    info: Arc<TokenInfo>,
    flags: slot::TokenInfo,
    mechanisms: Option<Arc<Mechanisms>>,
    /// Of the module, as of the last call.
    epoch: u64,
    /// Goes up whenever all that we hold on the token is given up.
    generation: u64,
    /// Keeps the login alive while others come and go. Lent only where there is no other.
    login_session: Option<Session>,
    idle: Vec<Session>,
    in_use: usize,
    limit: usize,
    /// Somebody has the token for itself.
    exclusive: bool,
    /// Whether the process is logged in, as far as we know.
    logged_in: bool,
    /// When the slots were last listed it was in none of them.
    absent: bool,
    /// How many wait for any of this to change.
    waiting: usize,
}

impl Token {
    /// A token found in a slot.
    pub fn new(id: TokenId, slot: Slot, info: TokenInfo, flags: slot::TokenInfo) -> Token {
        Token {
            id,
            name: Uri::of_token(&info).to_string(),
            inner: Mutex::new(Inner {
                slot,
                info: Arc::new(info),
                mechanisms: None,
                epoch: 0,
                generation: 0,
                login_session: None,
                idle: Vec::new(),
                in_use: 0,
                limit: limit(&flags),
                exclusive: false,
                logged_in: false,
                absent: false,
                waiting: 0,
                flags,
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
    pub fn info(&self) -> Arc<TokenInfo> {
        lock(&self.inner).info.clone()
    }

    /// Flags and limits from when the slots were last listed.
    pub fn flags(&self) -> slot::TokenInfo {
        lock(&self.inner).flags.clone()
    }

    /// Whether it wanted a login when the slots were last listed.
    pub fn login_required(&self) -> bool {
        lock(&self.inner).flags.login_required()
    }

    /// The slot that it was last seen in.
    pub fn slot(&self) -> Slot {
        lock(&self.inner).slot
    }

    /// The slots were listed and this token is in one of them.
    pub fn set_present(
        &self,
        call: &Call<'_>,
        slot: Slot,
        info: TokenInfo,
        flags: slot::TokenInfo,
    ) {
        let mut inner = self.inner(call);
        if std::mem::take(&mut inner.absent) {
            inner.start_new_life(true);
        }
        inner.slot = slot;
        inner.info = Arc::new(info);
        inner.limit = limit(&flags);
        inner.flags = flags;
    }

    /// The slots were listed and this token is in none of them. It was `era` before.
    pub fn set_absent(&self, call: &Call<'_>, era: Era) {
        let mut inner = self.inner(call);
        if inner.era() == era {
            inner.start_new_life(true);
            inner.absent = true;
            self.notify(inner);
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
    pub fn invalidate(&self, call: &Call<'_>, broken: Era) {
        let mut inner = self.inner(call);
        if inner.era() == broken {
            inner.start_new_life(true);
            self.notify(inner);
        }
    }

    /// Ends login and sessions, with nobody at work on the token.
    pub fn log_out(&self, call: &Call<'_>) {
        let mut inner = self.inner(call);
        if inner.logged_in
            && let Some(session) = inner.login_session.as_ref().or(inner.idle.first())
        {
            let _ = session.logout();
        }
        inner.start_new_life(true);
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
    fn notify(&self, inner: MutexGuard<'_, Inner>) {
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
            inner.start_new_life(false);
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
        self.idle.len() + self.in_use + usize::from(self.login_session.is_some())
    }

    fn start_new_life(&mut self, close: bool) {
        self.generation += 1;
        self.logged_in = false;
        self.mechanisms = None;
        self.limit = limit(&self.flags);
        for session in self.idle.drain(..).chain(self.login_session.take()) {
            if close {
                let _ = session.close();
            }
        }
        if !close {
            self.in_use = 0;
        }
    }
}

/// Whether the token has no session left to open.
pub(crate) fn is_full(error: &Error) -> bool {
    error.rv() == Some(RvError::SessionCount)
}

/// How many sessions we may have open on the token.
fn limit(flags: &slot::TokenInfo) -> usize {
    match flags.max_session_count() {
        Limit::Max(most) => usize::try_from(most)
            .unwrap_or(MOST_SESSIONS)
            .clamp(1, MOST_SESSIONS),
        Limit::Unavailable | Limit::Infinite => MOST_SESSIONS,
    }
}
