//! One token: what it says of itself, and what we hold open on it.
//!
//! What is open belongs to one *life* of the token, [`Opened`]: its sessions, the login, the handles of
//! keys. A life is given up by putting another in its place, and what is of an old one is told by its
//! address. Nothing here calls the module but what the methods of [`session::PooledSession`] do.

pub mod client;
pub mod id;
pub mod lookup;
pub mod mechanisms;
pub mod session;
pub mod slots;
pub mod turns;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use p11_proto::Pin;
use p11_proto::message::{LoginState, PinOwner};
use p11_uri::{TokenInfo, Uri};

use self::id::TokenId;
use self::mechanisms::Mechanisms;
use self::turns::Turns;
use super::lock::{Mutex, Rank};
use super::module::{Place, Session, TokenFlags};
use super::settings::Timeouts;

/// A token that was slot at least once.
pub(crate) struct Token {
    id: TokenId,
    /// Its URI, for people.
    name: Arc<str>,
    /// Whose turn it is.
    pub turns: Arc<Turns>,
    state: Mutex<State>,
}

struct State {
    slot: SlotToken,
    /// When the slots were last listed it was in none of them.
    absent: bool,
    current: Arc<Opened>,
    /// Sessions of lives that were given up, to be closed by the next turn.
    stale: Vec<Session>,
    accepted: Option<Accepted>,
    /// What became of the PINs that were sent last, one of each owner; the latest is the last.
    outcomes: Vec<Outcome>,
    /// Zero until a life was given up after a failure.
    pause: Duration,
    /// Before that no life is given up again.
    not_before: Instant,
    /// Since when, and with what, it has failed in each life, until a key signs.
    failing: Option<(Instant, String)>,
}

/// What became of a life in which something has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// It was given up, perhaps by another request.
    Yes,
    /// The same, and so were those before it, in none of which a key has signed since this time.
    Again(Instant),
    /// It stays for a while, as it is a new one.
    No,
}

/// A slot with a token, and what it said when the slots were last listed.
#[derive(Clone, Debug)]
pub(crate) struct SlotToken {
    pub place: Place,
    pub info: Arc<TokenInfo>,
    pub flags: Arc<TokenFlags>,
}

/// One life of a token: what is good until it is given up.
pub(crate) struct Opened {
    state: Mutex<OpenedState>,
}

#[derive(Default)]
struct OpenedState {
    idle: Vec<Session>,
    /// The session of slow requests, read/write where the token lets us. It is kept open, and with it the
    /// login.
    main: Option<Session>,
    login: Login,
    /// Whether anything has succeeded in this life: then its token is well.
    proved: bool,
    /// When a key has signed last.
    signed: Option<Instant>,
    mechanisms: Option<Arc<Mechanisms>>,
}

/// Whether the process is logged in to a token, which PKCS#11 shares among all its sessions
/// (section 5.6.8).
#[derive(Clone, Debug, Default)]
pub(crate) enum Login {
    /// It is not, as far as we know.
    #[default]
    Out,
    /// It is.
    In {
        /// With this PIN; `None` for a PIN pad, and for a login by another part of this program.
        pin: Option<Pin>,
        /// Whether that is the server's PIN, so that requests without a PIN use it.
        by_server: bool,
    },
}

/// The last PIN that a token has accepted, as a keyed digest, and when.
#[derive(Clone, Copy)]
pub(crate) struct Accepted {
    pub pin: PinDigest,
    pub at: Instant,
}

/// What the token has answered to a PIN of its user.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub owner: PinOwner,
    /// `None` for a PIN pad.
    pub pin: Option<PinDigest>,
    pub state: LoginState,
    /// Since when: the first of equal answers.
    pub since: SystemTime,
}

/// A PIN for one role on one token, as only this process can tell it again.
pub(crate) type PinDigest = [u8; 32];

impl Token {
    /// A token found in a slot.
    pub fn new(id: TokenId, slot: SlotToken) -> Token {
        let state = State {
            absent: false,
            current: Arc::new(Opened::new()),
            stale: Vec::new(),
            accepted: None,
            outcomes: Vec::new(),
            pause: Duration::ZERO,
            not_before: Instant::now(),
            failing: None,
            slot,
        };
        Token {
            id,
            name: Uri::of_token(&state.slot.info).to_string().into(),
            turns: Turns::new(state.slot.flags.most_sessions),
            state: Mutex::new(Rank::Token, state),
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
        self.state.lock().slot.info.clone()
    }

    /// Flags and limits from when the slots were last listed.
    pub fn flags(&self) -> Arc<TokenFlags> {
        self.state.lock().slot.flags.clone()
    }

    /// The slot that it was last slot in.
    pub fn place(&self) -> Place {
        self.state.lock().slot.place.clone()
    }

    /// The slots were listed and this token is in one of them.
    pub fn set_present(&self, slot: SlotToken) {
        self.turns.set_limit(slot.flags.most_sessions);
        let mut state = self.state.lock();
        if std::mem::take(&mut state.absent) {
            state.start_new_life();
        }
        state.slot = slot;
    }

    /// The slots were listed and this token is in none of them.
    pub fn set_absent(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.absent, true) {
            state.start_new_life();
        }
    }

    /// Whether it was in no slot when the slots were last listed.
    pub fn is_absent(&self) -> bool {
        self.state.lock().absent
    }

    /// The life that lasts now.
    pub fn life(&self) -> Arc<Opened> {
        self.state.lock().current.clone()
    }

    /// Whether this life lasts.
    pub fn is_current(&self, life: &Arc<Opened>) -> bool {
        Arc::ptr_eq(&self.state.lock().current, life)
    }

    /// Gives up a life in which something was found broken. Who comes later with the same one has nothing to
    /// give up any more.
    pub fn invalidate(&self, broken: &Arc<Opened>) {
        let mut state = self.state.lock();
        if Arc::ptr_eq(&state.current, broken) {
            state.start_new_life();
        }
    }

    /// The same after a failure that another life may heal. One in which nothing was signed is not given up
    /// again before a pause, which doubles with each time.
    pub fn give_up(&self, broken: &Arc<Opened>, why: &str, timeouts: &Timeouts) -> GivenUp {
        let mut state = self.state.lock();
        if !Arc::ptr_eq(&state.current, broken) {
            return GivenUp::Yes;
        }
        let now = Instant::now();
        if broken.has_signed() {
            state.failing = None;
        }
        let before = state.failing.as_ref().map(|(since, _)| *since);
        let since = before.unwrap_or(now);
        state.failing = Some((since, why.into()));
        if before.is_some() && now < state.not_before {
            return GivenUp::No;
        }
        state.pause = match before {
            Some(_) if now < state.not_before + timeouts.quiet => {
                (state.pause * 2).clamp(timeouts.first_pause, timeouts.longest_pause)
            }
            _ => timeouts.first_pause,
        };
        state.not_before = now + state.pause;
        state.start_new_life();
        match before {
            Some(since) => GivenUp::Again(since),
            None => GivenUp::Yes,
        }
    }

    /// Since when, and with what, it fails, where no key has signed since.
    pub fn failing(&self) -> Option<(Instant, String)> {
        let state = self.state.lock();
        let is_well = state.absent || state.current.has_signed();
        state.failing.clone().filter(|_| !is_well)
    }

    /// After a reload of the module nothing is open, and nothing of it may be closed: its numbers belong to
    /// others now.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.start_new_life();
        state.stale.clear();
        state.accepted = None;
        drop(state);
        self.turns.reset_sessions();
    }

    /// Puts a session back to its life; where that was given up, the session comes back to be closed.
    fn put_back(&self, life: &Arc<Opened>, session: Session, main: bool) -> Option<Session> {
        let state = self.state.lock();
        if !Arc::ptr_eq(&state.current, life) {
            return Some(session);
        }
        life.put_session(session, main);
        None
    }

    /// Sessions of lives that were given up, to be closed.
    fn take_stale(&self) -> Vec<Session> {
        std::mem::take(&mut self.state.lock().stale)
    }

    /// A session that the next turn shall close.
    fn close_later(&self, session: Session) {
        self.state.lock().stale.push(session);
    }

    /// The PIN that the token accepted last.
    pub fn accepted(&self) -> Option<Accepted> {
        self.state.lock().accepted
    }

    /// What the token accepted just now; `None` when it has not.
    pub fn set_accepted(&self, pin: Option<PinDigest>) {
        let at = Instant::now();
        self.state.lock().accepted = pin.map(|pin| Accepted { pin, at });
    }

    /// What became of the PINs that were sent last, the latest at the end.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.state.lock().outcomes.clone()
    }

    /// The token has answered to a PIN.
    pub fn add_outcome(&self, owner: PinOwner, pin: Option<PinDigest>, answer: LoginState) {
        let mut state = self.state.lock();
        let before = state.outcomes.iter().position(|one| one.owner == owner);
        let before = before.map(|at| state.outcomes.remove(at));
        let same = before.filter(|one| one.pin == pin && one.state == answer);
        state.outcomes.push(Outcome {
            owner,
            pin,
            state: answer,
            since: same.map_or_else(SystemTime::now, |one| one.since),
        });
    }
}

impl State {
    fn start_new_life(&mut self) {
        let old = std::mem::replace(&mut self.current, Arc::new(Opened::new()));
        if old.has_signed() {
            self.failing = None;
        }
        self.stale.append(&mut old.take_all());
    }
}

impl Opened {
    fn new() -> Opened {
        Opened {
            state: Mutex::new(Rank::Life, OpenedState::default()),
        }
    }

    /// Who is logged in.
    pub fn login_state(&self) -> Login {
        self.state.lock().login.clone()
    }

    /// Whether anybody is.
    pub fn is_logged_in(&self) -> bool {
        matches!(self.state.lock().login, Login::In { .. })
    }

    /// The process has logged in or out.
    pub fn set_login(&self, login: Login) {
        let mut state = self.state.lock();
        state.proved |= matches!(login, Login::In { .. });
        state.login = login;
    }

    /// Something has succeeded.
    pub fn set_proved(&self) {
        self.state.lock().proved = true;
    }

    /// Whether anything has succeeded in this life.
    pub fn is_proved(&self) -> bool {
        self.state.lock().proved
    }

    /// A key has signed.
    pub fn set_signed(&self) {
        self.state.lock().signed = Some(Instant::now());
    }

    /// Whether any key has signed in this life.
    fn has_signed(&self) -> bool {
        self.state.lock().signed.is_some()
    }

    /// Whether a key has signed since then: the token is well, whatever becomes of another key.
    pub fn has_signed_since(&self, then: Instant) -> bool {
        self.state.lock().signed.is_some_and(|signed| signed > then)
    }

    /// What the token can do, where it was asked in this life.
    pub fn mechanisms(&self) -> Option<Arc<Mechanisms>> {
        self.state.lock().mechanisms.clone()
    }

    /// What the token can do.
    pub fn set_mechanisms(&self, mechanisms: Arc<Mechanisms>) {
        self.state.lock().mechanisms = Some(mechanisms);
    }

    /// Whether a session for signatures lies idle.
    fn has_idle(&self) -> bool {
        !self.state.lock().idle.is_empty()
    }

    /// A session that lies idle: one for signatures, or the one of slow requests.
    fn take_session(&self, main: bool) -> Option<Session> {
        let mut state = self.state.lock();
        match main {
            true => state.main.take(),
            false => state.idle.pop(),
        }
    }

    fn put_session(&self, session: Session, main: bool) {
        let mut state = self.state.lock();
        match main {
            true => state.main = Some(session),
            false => state.idle.push(session),
        }
    }

    fn take_all(&self) -> Vec<Session> {
        let mut state = self.state.lock();
        let main = state.main.take();
        state.idle.drain(..).chain(main).collect()
    }
}
