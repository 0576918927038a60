//! What is on a token: each class of objects read once, and kept for those who ask meanwhile.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::object::ObjectClass;

use super::object::Object;
use super::pair::Pairs;
use crate::engine::lock::{Mutex, Rank};
use crate::engine::module::Module;
use crate::engine::token::client::Client;
use crate::engine::token::id::TokenId;
use crate::engine::token::mechanisms::Mechanisms;
use crate::engine::token::session::PooledSession;
use crate::engine::token::turns::Lane;
use crate::engine::token::{Opened, Token};
use crate::error::Error;

/// A reading keeps a processor for so long, and for one call, before it leaves it to signatures that wait for one: by
/// itself the system would let it go on for some milliseconds, in which forty signatures are made.
const STRETCH: Duration = Duration::from_micros(300);
const REST: Duration = Duration::from_micros(50);

/// The objects of one token, as they were read.
pub(crate) struct Contents {
    pub token: Arc<Token>,
    /// In which handles are good.
    pub life: Weak<Opened>,
    pub private: Vec<Object>,
    pub public: Vec<Object>,
    pub certificates: Vec<Object>,
    /// Which of them belong together.
    pub pairs: Pairs,
    /// What its token can do, where there is a private key in sight and the token tells.
    pub mechanisms: Option<Arc<Mechanisms>>,
    /// Whether a login might show more.
    pub hidden: bool,
    /// When the reading began.
    began: Instant,
}

/// What was read of each token last.
pub(crate) struct ContentsCache(Mutex<HashMap<TokenId, Arc<Contents>>>);

impl Contents {
    /// Reads all objects in a session.
    ///
    /// # Errors
    /// What the module said, [`Error::Timeout`] where nobody waits any more.
    pub fn read(session: &PooledSession<'_>, client: &Client<'_>) -> Result<Contents, Error> {
        let began = Instant::now();
        let rested = Cell::new(began);
        let go_on = || {
            if rested.get().elapsed() >= STRETCH {
                thread::sleep(REST);
                rested.set(Instant::now());
            }
            client.still_waits()
        };
        let logged_in = session.life().is_logged_in();
        let read = |class| Object::read_all(session, class, &go_on);
        let mut private = read(ObjectClass::PRIVATE_KEY)?;
        let mut public = read(ObjectClass::PUBLIC_KEY)?;
        let mut certificates = read(ObjectClass::CERTIFICATE)?;
        for objects in [&mut private, &mut public, &mut certificates] {
            objects.sort_by(|a, b| (&a.label, &a.id).cmp(&(&b.label, &b.id)));
        }
        // A login may be lost, or be made for another request, at any time: it must have lasted.
        let logged_in = logged_in && session.still_logged_in()?;
        let login_required = session.token().flags().login_required();
        if logged_in || !login_required {
            session.life().set_proved();
        }
        // Whether a key can sign with them is a question of the choice. That they are not told is no reason to show nothing.
        let mechanisms = match private.is_empty() {
            true => None,
            false => session.mechanisms().ok(),
        };
        Ok(Contents {
            token: session.token().clone(),
            life: Arc::downgrade(session.life()),
            pairs: Pairs::join(&private, &public, &certificates),
            mechanisms,
            private,
            public,
            certificates,
            hidden: login_required && !logged_in,
            began,
        })
    }

    /// Makes sure that a login which was there before has lasted, so that nothing private is missing.
    ///
    /// # Errors
    /// [`Error::Changed`]
    pub fn check_whole(&self) -> Result<(), Error> {
        match self.hidden {
            true => Err(Error::Changed {
                token: self.token.name().into(),
            }),
            false => Ok(()),
        }
    }

    /// Whether its handles are still good.
    pub fn is_current(&self) -> bool {
        let life = self.life.upgrade();
        life.is_some_and(|life| self.token.is_current(&life))
    }

    /// Whether it shows what was there at `then` or later, so that it may be believed to miss something too.
    pub fn is_as_of(&self, then: Instant) -> bool {
        self.began >= then && self.is_current()
    }
}

impl ContentsCache {
    /// Nothing was read yet.
    pub fn new() -> ContentsCache {
        ContentsCache(Mutex::new(Rank::Contents, HashMap::new()))
    }

    /// What the token holds, as of `then` or later: from the cache, or from a turn of its own.
    ///
    /// # Errors
    /// As [`Contents::read`].
    pub fn get(
        &self,
        module: &Arc<Module>,
        client: &Client<'_>,
        token: &Arc<Token>,
        lane: Lane,
        then: Instant,
    ) -> Result<Arc<Contents>, Error> {
        let known = || self.known_since(token, then);
        if let Some(contents) = known() {
            return Ok(contents);
        }
        let session = token.acquire(module, client, lane)?;
        // Who had the turn before may have read it for us.
        if let Some(contents) = known() {
            return Ok(contents);
        }
        self.read(&session, client)
    }

    /// Reads it in this session.
    ///
    /// # Errors
    /// As [`Contents::read`].
    pub fn read(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
    ) -> Result<Arc<Contents>, Error> {
        let contents = Arc::new(Contents::read(session, client)?);
        let id = session.token().id().clone();
        let mut known = self.0.lock();
        // Of tokens that are gone nothing is kept.
        known.retain(|_, contents| contents.life.strong_count() > 0);
        known.insert(id, contents.clone());
        Ok(contents)
    }

    /// What was read of a token at `then` or later.
    pub fn known_since(&self, token: &Token, then: Instant) -> Option<Arc<Contents>> {
        self.known(token).filter(|contents| contents.is_as_of(then))
    }

    /// What was read of the same token last.
    pub fn latest(&self, contents: &Arc<Contents>) -> Arc<Contents> {
        self.known(&contents.token)
            .unwrap_or_else(|| contents.clone())
    }

    /// The token was changed: nobody is shown what was there before.
    pub fn invalidate(&self, token: &Token) {
        self.0.lock().remove(token.id());
    }

    fn known(&self, token: &Token) -> Option<Arc<Contents>> {
        self.0.lock().get(token.id()).cloned()
    }
}
