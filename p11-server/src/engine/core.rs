//! What all requests share: the module, its tokens, the keys that were found, the PINs that were refused.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use p11_uri::Uri;

use super::find::key::{Key, KeyCache, recheck};
use super::find::search::Search;
use super::login::pin_guard::Guard;
use super::login::same;
use super::module::{Call, Module};
use super::query::{KeyQuery, query};
use super::settings::{Settings, Timeouts};
use super::token::Login;
use super::token::slots::Tokens;
use crate::error::Error;
use crate::service::Access;
use p11_proto::{Pin, UriText};

/// One module and what is known of its tokens.
pub(crate) struct Core {
    pub module: Module,
    pub tokens: Tokens,
    pub keys: KeyCache,
    pub guard: Guard,
    settings: RwLock<Arc<Settings>>,
    /// Held by who initialises a token: the next one finds it made.
    pub initializing: Mutex<()>,
}

impl Core {
    /// Loads the module, which is initialised by the first request.
    pub fn load(module: &Path, settings: Settings, timeouts: Timeouts) -> Result<Core, Error> {
        Ok(Core {
            module: Module::load(module, timeouts)?,
            tokens: Tokens::default(),
            keys: KeyCache::new(),
            guard: Guard::new()?,
            settings: RwLock::new(Arc::new(settings)),
            initializing: Mutex::default(),
        })
    }

    /// Initialises the module if it is down and the next try is due.
    pub fn start(&self) -> Result<(), Error> {
        self.module.enter(self.module.timeouts().request).map(drop)
    }

    /// The operator has changed the settings, or says that PINs may be tried again.
    pub fn reconfigure(&self, settings: Settings) {
        let mut current = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let same_pin = match (&current.pin, &settings.pin) {
            (Some(old), Some(new)) => same(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        *current = Arc::new(settings);
        drop(current);
        if !same_pin {
            self.guard.forget_replaced();
            // The new one has to be checked by the token. A login that is being made at this moment may
            // hang, and signals must not wait for it.
            for token in self.tokens.known() {
                if let Ok(mut login) = token.login.try_lock() {
                    *login = Login::Out;
                }
            }
        }
        self.guard.forget_all();
        self.keys.invalidate_all();
    }

    /// The operator's settings, as they are now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What a request about a token asks for, of whatever key.
    pub fn query<'a>(
        &self,
        uri: &'a str,
        pin: Option<&'a Pin>,
        access: &'a dyn Access,
    ) -> Result<KeyQuery<'a>, Error> {
        query(uri, pin, access, self.settings())
    }

    /// The key that is asked for, on a token that is logged in if it wants to be: from the cache, which
    /// costs no call, else by a search.
    pub fn key(&self, call: &Call<'_>, query: &KeyQuery<'_>) -> Result<Arc<Key>, Error> {
        let known = self.keys.get(&query.name, query.expected);
        if let Some(key) = &known
            && key.era == key.token.era(call)
        {
            query.access.check(&key.token.info(), Some(&key.info))?;
            if key.trusted(call.timeouts().idle) || recheck(call, key)? {
                self.guard.log_in(call, &key.token, query.pins())?;
                return Ok(key.clone());
            }
            self.keys.invalidate(key);
        }
        let uri = query.scoped()?;
        let last_token = known.as_ref().map(|key| &*key.token);
        let search = Search {
            expected: query.expected,
            opened: query.opened,
            last_token,
            ..self.search(call, query, &uri)
        };
        let key = Arc::new(search.run(&self.tokens.scan(call)?)?);
        self.keys
            .insert(&query.name, &key, query.expected.is_none());
        self.keys.insert(&key.message.uri, &key, false);
        Ok(key)
    }

    /// A search for whatever key the URI of a request leads to.
    pub fn search<'a>(
        &'a self,
        call: &'a Call<'a>,
        query: &'a KeyQuery<'a>,
        uri: &'a Uri,
    ) -> Search<'a> {
        Search {
            call,
            guard: &self.guard,
            uri,
            pins: query.pins(),
            expected: None,
            opened: false,
            last_token: None,
            access: query.access,
            preferred: self.keys.preferred(&query.name),
        }
    }
}

/// The URI of a request that may leave it away.
pub(crate) fn any(uri: &Option<UriText>) -> &str {
    uri.as_deref().unwrap_or("pkcs11:")
}
