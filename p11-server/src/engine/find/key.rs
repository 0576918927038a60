//! Keys that were found, and the cache of which key a URI means, shared by all clients.

use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use cryptoki::context::Function;
use cryptoki::error::RvError;
use cryptoki::object::{ObjectClass, ObjectHandle};
use lru::LruCache;
use p11_proto::message::OpenedKey;
use p11_proto::spki::{Kind, PublicKey};
use p11_proto::{Identity, Scheme};
use p11_uri::{ObjectInfo, Uri};
use tracing::warn;

use super::object::Object;
use super::pair::{Half, ToldBy};
use crate::engine::lock::{Mutex, Rank};
use crate::engine::login::Logins;
use crate::engine::sign::encode;
use crate::engine::sign::scheme::{Method, methods};
use crate::engine::token::client::Client;
use crate::engine::token::session::PooledSession;
use crate::engine::token::{Opened, Token};
use crate::error::{Error, Recovery};

/// URIs that are cached; the least recently used goes.
const MOST_URIS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Keys cached for one URI: that many clients with certificates of their own may share it.
const MOST_KEYS: usize = 16;

/// A private key on a token, with all that a signature needs.
pub(crate) struct Key {
    /// Where it lies.
    pub token: Arc<Token>,
    /// The life of the token in which its handle is good.
    life: Weak<Opened>,
    handle: ObjectHandle,
    /// Who tells its public key.
    told_by: ToldBy,
    /// Whether it signs after a login only.
    pub needs_login: bool,
    /// Whether each signature wants a login of its own.
    always_authenticate: bool,
    kind: Kind,
    /// What its private half says of itself.
    pub info: ObjectInfo,
    message: OpenedKey,
    /// What the client is told of the choice, if it asks by the URI that led to it.
    pub note: Option<String>,
    /// That URI, as queries remember it.
    pub meant_by: String,
    /// Its ways to sign, those of one scheme together, the best first.
    methods: Vec<Method>,
    /// Shared with what was found of the same key before.
    state: Arc<Mutex<State>>,
}

struct State {
    used: Instant,
    /// Since when it fails, if it does.
    failing: Option<Instant>,
    /// Ways that its token lists and then refuses.
    refused: Vec<Method>,
}

impl Key {
    /// A private key that was found in the life of this session, and whose public half is known.
    ///
    /// # Errors
    /// What the module said to the question for its mechanisms.
    pub fn new(session: &PooledSession<'_>, object: &Object, half: &Half) -> Result<Key, Error> {
        let token = session.token();
        let mechanisms = session.mechanisms()?;
        let kind = half.public.kind();
        let methods = methods(
            kind,
            &mechanisms,
            &object.allowed_mechanisms(),
            object.can_decrypt(),
        );
        let state = State {
            used: Instant::now(),
            failing: None,
            refused: Vec::new(),
        };
        Ok(Key {
            token: token.clone(),
            life: Arc::downgrade(session.life()),
            handle: object.handle,
            told_by: half.told_by,
            needs_login: object.needs_login(),
            always_authenticate: object.always_authenticate(),
            kind,
            info: object.info(),
            message: OpenedKey::new(uri(token, object).to_string(), &half.public, []),
            note: None,
            meant_by: String::new(),
            methods,
            state: Arc::new(Mutex::new(Rank::Key, state)),
        })
    }

    /// Which key pair it is.
    pub fn identity(&self) -> Identity {
        self.message.identity
    }

    /// Whether the life of its token lasts in which its handle is good.
    pub fn is_current(&self) -> bool {
        let life = self.life.upgrade();
        life.is_some_and(|life| self.token.is_current(&life))
    }

    /// Its full URI.
    pub fn uri(&self) -> &str {
        &self.message.uri
    }

    /// What a client is told of it that asks by this URI, and has not said which key it is.
    pub fn opened(&self, meaning: Option<&str>) -> OpenedKey {
        let schemes = self.schemes().into_iter().map(Scheme::number);
        let mut opened = self.message.clone();
        opened.schemes = schemes.collect();
        let is_of_it = self.is_taken_at_word() || meaning == Some(&self.meant_by);
        opened.note(self.note.clone().filter(|_| is_of_it))
    }

    /// What it can sign, as far as is known.
    pub fn schemes(&self) -> Vec<Scheme> {
        let state = self.state.lock();
        let usable = |method: &&Method| !state.refused.contains(method);
        let usable = self.methods.iter().filter(usable);
        let mut schemes: Vec<_> = usable.map(|method| method.scheme).collect();
        schemes.dedup();
        schemes
    }

    /// How to sign a scheme with it.
    fn method(&self, scheme: u16) -> Result<Method, Error> {
        let wanted = Scheme::from_number(scheme);
        let state = self.state.lock();
        let mut ways = self.methods.iter();
        let way = ways.find(|way| Some(way.scheme) == wanted && !state.refused.contains(way));
        drop(state);
        way.copied().ok_or_else(|| Error::UnsupportedScheme {
            scheme,
            available: match self.schemes().as_slice() {
                [] => "none, since its token offers no mechanism for it".into(),
                schemes => {
                    let names: Vec<_> = schemes.iter().map(|scheme| scheme.name()).collect();
                    names.join(", ")
                }
            },
        })
    }

    /// Signs a message in this session. A way that the token lists and then refuses is not taken again.
    ///
    /// # Errors
    /// [`Error::UnsupportedScheme`], what the module said, and the PIN errors where the key wants a login for
    /// each signature.
    pub fn sign(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
        logins: &Logins,
        scheme: u16,
        message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let log_in = || logins.log_in_for_signature(session, client);
        let log_in = self
            .always_authenticate
            .then_some(&log_in as &dyn Fn() -> _);
        let length = encode::signature_len(self.kind);
        loop {
            let method = self.method(scheme)?;
            let input = encode::input(method.input, self.kind, message)?;
            let signed = session.sign(&method.mechanism(), self.handle, &input, length, log_in);
            let signed = signed.and_then(|signature| encode::output(self.kind, signature));
            let mut state = self.state.lock();
            match &signed {
                Ok(_) => {
                    state.failing = None;
                    state.used = Instant::now();
                }
                Err(error) if is_refusal(error) => {
                    let uri = self.uri();
                    warn!("{uri} is signed with in another way from now on: {error}");
                    state.refused.push(method);
                    continue;
                }
                Err(_) => drop(state.failing.get_or_insert_with(Instant::now)),
            }
            return signed;
        }
    }

    /// Makes sure, after `idle` without use, that its handle still leads to the same key: by the attributes of
    /// its own handles, at most two calls.
    ///
    /// # Errors
    /// [`Error::Changed`] where it does not, and what the module said.
    pub fn check(&self, session: &PooledSession<'_>, idle: Duration) -> Result<(), Error> {
        let changed = || Error::Changed {
            token: self.token.name().into(),
        };
        // Others may have given up what this handle belongs to.
        if !std::ptr::eq(Arc::as_ptr(session.life()), self.life.as_ptr()) {
            return Err(changed());
        }
        if !self.lies_idle(idle) {
            return Ok(());
        }
        let told = Object::read(session, self.handle, ObjectClass::PRIVATE_KEY);
        let is_it = told.and_then(|private| match self.told_by {
            ToldBy::Itself => Ok(self.is(private.public_key()?)),
            ToldBy::Object(handle, class) => {
                Ok(self.is(Object::read(session, handle, class)?.public_key()?))
            }
            // Its names are all there is to know it by.
            ToldBy::Client => Ok(private.info() == self.info),
        });
        match is_it {
            Ok(true) => {
                self.state.lock().used = Instant::now();
                Ok(())
            }
            Ok(false) => Err(changed()),
            Err(error) => match error.recovery() {
                Recovery::FindKeyAgain | Recovery::None => Err(changed()),
                _ => Err(error),
            },
        }
    }

    fn is(&self, told: Option<PublicKey>) -> bool {
        told.is_some_and(|public| public.identity() == self.identity())
    }

    /// Whether nothing but a client's word tells its public key.
    pub fn is_taken_at_word(&self) -> bool {
        matches!(self.told_by, ToldBy::Client)
    }

    /// Whether its handle was not used for so long that it has to be checked.
    pub fn lies_idle(&self, idle: Duration) -> bool {
        self.state.lock().used.elapsed() > idle
    }

    /// It is the same key as one that was found before.
    pub fn continue_as(&mut self, before: &Key) {
        self.state = before.state.clone();
        self.state.lock().used = Instant::now();
    }

    /// Since when it fails, if it does.
    pub fn failing_since(&self) -> Option<Instant> {
        self.state.lock().failing
    }
}

/// Whether the token lists a mechanism that it will not sign with.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Module {
            rv: RvError::MechanismInvalid
                | RvError::MechanismParamInvalid
                | RvError::KeyFunctionNotPermitted,
            function: Function::SignInit,
        }
    )
}

/// The full URI of a key by its private half.
pub(crate) fn uri(token: &Token, object: &Object) -> Uri {
    Uri::of_object(&token.info(), &object.info())
}

/// Which keys the URIs of clients mean.
pub(crate) struct KeyCache {
    uris: Mutex<LruCache<String, CachedUri>>,
    /// Public keys that clients gave and nothing on a token tells: their signatures carry the identity alone.
    given: Mutex<LruCache<Identity, PublicKey>>,
}

#[derive(Default)]
struct CachedUri {
    /// What the URI means by itself. It outlives the handle: while that key exists, it stays meant.
    preferred: Option<Identity>,
    keys: Vec<Arc<Key>>,
}

impl KeyCache {
    /// Knows nothing yet.
    pub fn new() -> KeyCache {
        KeyCache {
            uris: Mutex::new(Rank::Keys, LruCache::new(MOST_URIS)),
            given: Mutex::new(Rank::Keys, LruCache::new(MOST_URIS)),
        }
    }

    /// The key that a URI means, or the one of this identity among those that it leads to.
    pub fn get(&self, uri: &str, expected: Option<Identity>) -> Option<Arc<Key>> {
        let mut uris = self.uris.lock();
        let cached = uris.get(uri)?;
        let identity = expected.or(cached.preferred)?;
        let key = cached.keys.iter().find(|key| key.identity() == identity);
        key.cloned()
    }

    /// The identity that a URI meant when it was last looked up without naming one.
    pub fn preferred(&self, uri: &str) -> Option<Identity> {
        self.uris.lock().get(uri)?.preferred
    }

    /// The public key of this identity, where a client gave it and was taken at its word.
    pub fn given(&self, identity: Identity) -> Option<PublicKey> {
        self.given.lock().get(&identity).cloned()
    }

    /// A client was taken at its word for this public key.
    pub fn insert_given(&self, public: &PublicKey) {
        self.given.lock().put(public.identity(), public.clone());
    }

    /// These URIs led to this key, each by itself if no identity was asked for. That is cached if it still holds: what
    /// ends it is followed by [`KeyCache::invalidate_all`].
    pub fn insert_if(&self, holds: impl Fn() -> bool, key: &Arc<Key>, by: [(&str, bool); 2]) {
        let mut uris = self.uris.lock();
        if !holds() {
            return;
        }
        for (uri, by_itself) in by {
            let cached = uris.get_or_insert_mut(uri.to_owned(), CachedUri::default);
            cached
                .keys
                .retain(|other| other.identity() != key.identity());
            cached.keys.truncate(MOST_KEYS - 1);
            cached.keys.insert(0, key.clone());
            if by_itself {
                cached.preferred = Some(key.identity());
            }
        }
    }

    /// The handle of this key is no longer good.
    pub fn invalidate(&self, key: &Arc<Key>) {
        for (_, cached) in self.uris.lock().iter_mut() {
            cached.keys.retain(|other| !Arc::ptr_eq(other, key));
        }
    }

    /// The keys of these URIs are deleted. What URIs of clients mean is kept: while another such key exists, it
    /// stays meant.
    pub fn invalidate_deleted(&self, deleted: &[String]) {
        for (_, cached) in self.uris.lock().iter_mut() {
            cached
                .keys
                .retain(|key| !deleted.contains(&key.message.uri));
        }
    }

    /// The server's own URI has changed.
    pub fn invalidate_all(&self) {
        self.uris.lock().clear();
    }
}
