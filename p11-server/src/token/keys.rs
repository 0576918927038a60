//! Keys that were found, and the memory of which key a URI means, shared by all clients.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cryptoki::object::ObjectHandle;
use lru::LruCache;
use p11_proto::message::Key as KeyMessage;
use p11_proto::spki::{Kind, PublicKey};
use p11_proto::{Identity, Scheme};
use p11_uri::{ObjectFacts, Uri};

use super::inventory;
use super::lock;
use super::module::Call;
use super::objects::Object;
use super::schemes::{self, Plan};
use super::session::{Era, Token};
use crate::error::Error;

/// URIs that are remembered; the least recently used goes.
const MOST_URIS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Keys remembered for one URI: that many clients with certificates of their own may share it.
const MOST_KEYS: usize = 16;

/// After this long without use a handle is checked before it signs.
const TRUST: Duration = Duration::from_secs(30);

/// A private key on a token, with all that a signature needs.
pub struct Key {
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
    pub facts: ObjectFacts,
    /// What clients are told of it.
    pub message: Arc<KeyMessage>,
    plans: Vec<Plan>,
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
        let plans = schemes::plans(
            kind,
            &mechanisms,
            &object.allowed_mechanisms(),
            object.can_decrypt(),
        );
        let (key_type, bits) = inventory::kind(kind);
        Ok(Key {
            token: token.clone(),
            handle: object.handle,
            era,
            always_authenticate: object.always_authenticate(),
            kind,
            facts: object.facts(),
            message: Arc::new(KeyMessage {
                uri: uri(token, object).to_string(),
                key_type,
                bits,
                schemes: plans.iter().map(|plan| plan.scheme.number()).collect(),
                spki: public.spki().to_vec().into(),
                identity: public.identity(),
            }),
            plans,
            used: Mutex::new(Instant::now()),
        })
    }

    /// Which key pair it is.
    pub fn identity(&self) -> Identity {
        self.message.identity
    }

    /// How to sign a scheme with it; without a number, its first.
    ///
    /// # Errors
    /// [`Error::UnsupportedScheme`]
    pub fn plan(&self, scheme: Option<u16>) -> Result<&Plan, Error> {
        let plan = match scheme {
            None => self.plans.first(),
            Some(number) => {
                let wanted = Scheme::from_number(number);
                self.plans.iter().find(|plan| Some(plan.scheme) == wanted)
            }
        };
        plan.ok_or_else(|| Error::UnsupportedScheme {
            scheme: scheme.unwrap_or_default(),
            available: match self.plans.as_slice() {
                [] => "none, since its token offers no mechanism for it".into(),
                plans => {
                    let names: Vec<_> = plans.iter().map(|plan| plan.scheme.name()).collect();
                    names.join(", ")
                }
            },
        })
    }

    /// Whether the handle was used so recently that it needs no check, and notes this use.
    pub fn trusted(&self) -> bool {
        let mut used = lock(&self.used);
        let trusted = used.elapsed() <= TRUST;
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

/// The full URI of a key by its private half.
pub fn uri(token: &Token, object: &Object) -> Uri {
    Uri::of_object(&token.facts(), &object.facts())
}

/// Which keys the URIs of clients mean.
pub struct Memory {
    uris: Mutex<LruCache<String, Remembered>>,
}

#[derive(Default)]
struct Remembered {
    /// What the URI means by itself. It outlives the handle: while that key exists, it stays meant.
    meant: Option<Identity>,
    keys: Vec<Arc<Key>>,
}

impl Memory {
    /// Knows nothing yet.
    pub fn new() -> Memory {
        Memory {
            uris: Mutex::new(LruCache::new(MOST_URIS)),
        }
    }

    /// The key that a URI means, or the one of this identity among those that it leads to.
    pub fn recall(&self, uri: &str, wanted: Option<Identity>) -> Option<Arc<Key>> {
        let mut uris = lock(&self.uris);
        let remembered = uris.get(uri)?;
        let identity = wanted.or(remembered.meant)?;
        let key = remembered
            .keys
            .iter()
            .find(|key| key.identity() == identity);
        key.cloned()
    }

    /// The identity that a URI meant when it was last looked up without naming one.
    pub fn meant(&self, uri: &str) -> Option<Identity> {
        lock(&self.uris).get(uri)?.meant
    }

    /// A URI led to this key; `by_itself` if no identity was asked for.
    pub fn remember(&self, uri: &str, key: &Arc<Key>, by_itself: bool) {
        let mut uris = lock(&self.uris);
        let remembered = uris.get_or_insert_mut(uri.to_owned(), Remembered::default);
        remembered
            .keys
            .retain(|other| other.identity() != key.identity());
        remembered.keys.truncate(MOST_KEYS - 1);
        remembered.keys.insert(0, key.clone());
        if by_itself {
            remembered.meant = Some(key.identity());
        }
    }

    /// The handle of this key is no longer good.
    pub fn forget(&self, key: &Arc<Key>) {
        for (_, remembered) in lock(&self.uris).iter_mut() {
            remembered.keys.retain(|other| !Arc::ptr_eq(other, key));
        }
    }

    /// Some key may be gone. What URIs mean is kept: while the others exist, they stay meant.
    pub fn forget_handles(&self) {
        for (_, remembered) in lock(&self.uris).iter_mut() {
            remembered.keys.clear();
        }
    }

    /// The server's own URI has changed.
    pub fn forget_all(&self) {
        lock(&self.uris).clear();
    }
}
