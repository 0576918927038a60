//! Keys that were found, and the cache of which key a URI means, shared by all clients.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cryptoki::object::ObjectHandle;
use lru::LruCache;
use p11_proto::message::OpenedKey;
use p11_proto::spki::{Kind, PublicKey};
use p11_proto::{Identity, Scheme};
use p11_uri::{ObjectInfo, Uri};

use super::object::Object;
use super::pair::public_half;
use crate::engine::login::pin_guard::{Guard, Pins};
use crate::engine::module::Call;
use crate::engine::module::Era;
use crate::engine::sign::scheme::{Method, methods};
use crate::engine::sign::sign;
use crate::engine::token::Token;
use crate::error::{Error, Recovery};
use crate::lock::lock;

/// URIs that are cached; the least recently used goes.
const MOST_URIS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Keys cached for one URI: that many clients with certificates of their own may share it.
const MOST_KEYS: usize = 16;

/// A private key on a token, with all that a signature needs.
pub(crate) struct Key {
    /// Where it lies.
    pub token: Arc<Token>,
    /// Its handle, good in `era`.
    pub handle: ObjectHandle,
    /// When it was found.
    pub era: Era,
    /// Whether each signature wants a login of its own.
    pub always_authenticate: bool,
    /// RSA, EC or Ed25519, and how large.
    pub kind: Kind,
    /// What its private half says of itself.
    pub info: ObjectInfo,
    /// What clients are told of it.
    pub message: OpenedKey,
    methods: Vec<Method>,
    used: Mutex<Instant>,
}

impl Key {
    /// A private key that was found in this era, and whose public half is known.
    ///
    /// # Errors
    /// What the module said to the question for its mechanisms.
    pub fn new(
        call: &Call<'_>,
        token: &Arc<Token>,
        era: Era,
        object: &Object,
        public: &PublicKey,
    ) -> Result<Key, Error> {
        let kind = public.kind();
        let mechanisms = token.mechanisms(call)?;
        let methods = methods(
            kind,
            &mechanisms,
            &object.allowed_mechanisms(),
            object.can_decrypt(),
        );
        Ok(Key {
            token: token.clone(),
            handle: object.handle,
            era,
            always_authenticate: object.always_authenticate(),
            kind,
            info: object.info(),
            message: OpenedKey::new(
                uri(token, object).to_string(),
                public,
                methods.iter().map(|method| method.scheme),
            ),
            methods,
            used: Mutex::new(Instant::now()),
        })
    }

    /// Which key pair it is.
    pub fn identity(&self) -> Identity {
        self.message.identity
    }

    /// How to sign a scheme with it.
    ///
    /// # Errors
    /// [`Error::UnsupportedScheme`]
    pub fn method(&self, scheme: u16) -> Result<&Method, Error> {
        let wanted = Scheme::from_number(scheme);
        let method = self
            .methods
            .iter()
            .find(|method| Some(method.scheme) == wanted);
        method.ok_or_else(|| Error::UnsupportedScheme {
            scheme,
            available: match self.methods.as_slice() {
                [] => "none, since its token offers no mechanism for it".into(),
                methods => {
                    let names: Vec<_> = methods.iter().map(|method| method.scheme.name()).collect();
                    names.join(", ")
                }
            },
        })
    }

    /// Signs a message, on a token that is logged in.
    ///
    /// # Errors
    /// What the module said, and the PIN errors where the key wants a login for each signature.
    pub fn sign(
        &self,
        call: &Call<'_>,
        guard: &Guard,
        method: &Method,
        message: &[u8],
        pins: Pins<'_>,
    ) -> Result<Vec<u8>, Error> {
        let session = self.token.acquire(call)?;
        // Others may have given up what this handle belongs to.
        if session.era() != self.era {
            let token = self.token.name().into();
            return Err(Error::Changed { token });
        }
        let log_in = || guard.log_in_for_signature(call, &self.token, &session, pins);
        let log_in = self
            .always_authenticate
            .then_some(&log_in as &dyn Fn() -> _);
        let signature = sign(
            call,
            &session,
            self.handle,
            (self.kind, method),
            message,
            log_in,
        )?;
        session.finish();
        Ok(signature)
    }

    /// Whether the handle was used so recently that it needs no check, and notes this use.
    pub fn trusted(&self, idle: Duration) -> bool {
        let mut used = lock(&self.used);
        let trusted = used.elapsed() <= idle;
        if trusted {
            *used = Instant::now();
        }
        trusted
    }

    /// The handle was checked just now.
    pub fn checked(&self) {
        *lock(&self.used) = Instant::now();
    }
}

/// Whether a handle that lay idle still leads to the same key.
pub(crate) fn recheck(call: &Call<'_>, key: &Key) -> Result<bool, Error> {
    let session = key.token.acquire(call)?;
    let public =
        Object::private_key(&session, key.handle).and_then(|object| public_half(&session, &object));
    match public {
        Ok(public) => {
            session.finish();
            key.checked();
            Ok(public.identity() == key.identity())
        }
        Err(error) => match error.recovery() {
            Recovery::FindKeyAgain | Recovery::None => Ok(false),
            _ => Err(error),
        },
    }
}

/// The full URI of a key by its private half.
pub(crate) fn uri(token: &Token, object: &Object) -> Uri {
    Uri::of_object(&token.info(), &object.info())
}

/// Which keys the URIs of clients mean.
pub(crate) struct KeyCache {
    uris: Mutex<LruCache<String, CachedUri>>,
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
            uris: Mutex::new(LruCache::new(MOST_URIS)),
        }
    }

    /// The key that a URI means, or the one of this identity among those that it leads to.
    pub fn get(&self, uri: &str, expected: Option<Identity>) -> Option<Arc<Key>> {
        let mut uris = lock(&self.uris);
        let cached = uris.get(uri)?;
        let identity = expected.or(cached.preferred)?;
        let key = cached.keys.iter().find(|key| key.identity() == identity);
        key.cloned()
    }

    /// The identity that a URI meant when it was last looked up without naming one.
    pub fn preferred(&self, uri: &str) -> Option<Identity> {
        lock(&self.uris).get(uri)?.preferred
    }

    /// A URI led to this key; `by_itself` if no identity was asked for.
    pub fn insert(&self, uri: &str, key: &Arc<Key>, by_itself: bool) {
        let mut uris = lock(&self.uris);
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

    /// The handle of this key is no longer good.
    pub fn invalidate(&self, key: &Arc<Key>) {
        for (_, cached) in lock(&self.uris).iter_mut() {
            cached.keys.retain(|other| !Arc::ptr_eq(other, key));
        }
    }

    /// Some key may be gone. What URIs mean is kept: while the others exist, they stay meant.
    pub fn invalidate_handles(&self) {
        for (_, cached) in lock(&self.uris).iter_mut() {
            cached.keys.clear();
        }
    }

    /// The server's own URI has changed.
    pub fn invalidate_all(&self) {
        lock(&self.uris).clear();
    }
}
