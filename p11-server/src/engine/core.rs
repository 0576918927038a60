//! What all requests share: the module, its tokens, the keys that were found, the PINs that were refused.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use p11_proto::{Pin, UriText};
use p11_uri::Uri;

use super::counts::Counts;
use super::find::contents::{Contents, ContentsCache};
use super::find::key::{Key, KeyCache};
use super::find::search::Search;
use super::lock::{Mutex, Rank};
use super::login::{Logins, Pins};
use super::module::Module;
use super::query::{KeyQuery, query};
use super::settings::{Settings, Timeouts};
use super::token::Token;
use super::token::client::Client;
use super::token::session::PooledSession;
use super::token::slots::Registry;
use super::token::turns::Lane;
use crate::error::Error;
use crate::service::Access;

/// One module and what is known of its tokens.
pub(crate) struct Core {
    pub module: Arc<Module>,
    pub registry: Arc<Registry>,
    pub contents: ContentsCache,
    pub keys: KeyCache,
    pub logins: Logins,
    pub counts: Counts,
    /// Held by who initialises a token: the next one finds it made.
    pub initializing: Mutex<()>,
}

impl Core {
    /// Loads the module, which is initialised by the first request.
    pub fn load(module: &Path, settings: Settings, timeouts: Timeouts) -> Result<Core, Error> {
        let module = Arc::new(Module::load(module, timeouts)?);
        module.set_init_text(settings.init_text());
        let registry = Registry::new(module.clone());
        Ok(Core {
            logins: Logins::new(registry.clone(), settings, timeouts.unclear)?,
            counts: Counts::new(),
            registry,
            module,
            contents: ContentsCache::new(),
            keys: KeyCache::new(),
            initializing: Mutex::new(Rank::InitToken, ()),
        })
    }

    /// Initialises the module if it is down and the next try is due, or reloads it where that was asked for.
    pub fn start(&self) -> Result<(), Error> {
        let deadline = Instant::now() + self.module.timeouts().request;
        self.reload_if_requested(deadline);
        self.module.guard(deadline).map(drop)
    }

    /// The operator has changed the settings, or says that refused PINs may be tried once more.
    pub fn reconfigure(&self, settings: Settings) {
        self.module.set_init_text(settings.init_text());
        self.logins.reconfigure(settings);
        self.keys.invalidate_all();
        // Some modules show what other programs have changed by a reload alone.
        let why = "the configuration was read anew";
        self.module.request_reload(&self.module.life(), why);
    }

    /// The operator's settings, as they are now.
    pub fn settings(&self) -> Arc<Settings> {
        self.logins.settings()
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

    /// Reloads the module if an earlier request has asked for it and it is due. Where that fails, the next
    /// call says why.
    pub fn reload_if_requested(&self, deadline: Instant) {
        if let Some((life, why)) = self.module.requested_reload() {
            let _ = self.module.reload(&life, &why, deadline, &|| self.reset());
        }
    }

    /// The module was finalised: nothing is open on any token, and what was unclear may be clear when it is up again.
    pub fn reset(&self) {
        self.registry.reset_tokens();
        self.logins.reloaded();
    }

    /// The key that is asked for, on a token that is logged in if it wants to be: from the cache, which
    /// costs no call, else by a search.
    pub fn key(&self, client: &Client<'_>, query: &KeyQuery<'_>) -> Result<Arc<Key>, Error> {
        let known = self.keys.get(&query.meaning(), query.expected);
        if let Some(key) = &known
            && key.is_current()
        {
            client.access.check(&key.token.info(), Some(&key.info))?;
            if key.needs_login {
                self.log_in(client, &key.token, query.pins())?;
            }
            return Ok(key.clone());
        }
        let uri = query.scoped()?;
        let given_before = || self.keys.given(query.expected?);
        let given = query.given.clone().or_else(given_before);
        let last_token = known.as_ref().map(|key| &*key.token);
        let search = Search {
            expected: query.expected,
            given: given.as_ref(),
            opened: query.opened,
            last_token,
            ..self.search(client, query, &uri)
        };
        let slots = self.registry.scan(client)?;
        let found = search.run(&slots.tokens);
        if matches!(
            found,
            Err(Error::TokenNotFound(_) | Error::KeyNotFound { .. })
        ) {
            slots.found_all(client.access)?;
        }
        let found = found.map_err(|error| slots.explain(error, client.access));
        let mut key = found?;
        if let Some(given) = given.filter(|_| key.is_taken_at_word()) {
            self.keys.insert_given(&given);
        }
        let before = self.keys.get(key.uri(), Some(key.identity()));
        if let Some(before) = before.or(known.filter(|known| known.identity() == key.identity())) {
            key.continue_as(&before);
        }
        key.meant_by = query.meaning().into_owned();
        let key = Arc::new(key);
        // What was found within an older scope is for this request alone.
        let is_current = || Arc::ptr_eq(&query.settings, &self.settings());
        let by_itself = query.expected.is_none();
        self.keys.insert_if(
            is_current,
            &key,
            [(&query.meaning(), by_itself), (key.uri(), false)],
        );
        Ok(key)
    }

    /// A turn to sign with a key whose handle is good.
    pub fn session_of<'t>(
        &'t self,
        client: &Client<'_>,
        key: &'t Key,
    ) -> Result<PooledSession<'t>, Error> {
        let session = key.token.acquire(&self.module, client, Lane::Sign)?;
        key.check(&session, self.module.timeouts().idle)?;
        Ok(session)
    }

    /// Makes sure that a token is logged in, in a turn of its own where it is not.
    pub fn log_in(
        &self,
        client: &Client<'_>,
        token: &Arc<Token>,
        pins: Pins<'_>,
    ) -> Result<(), Error> {
        if !self.logins.may_use(client, token, &token.life(), pins)? {
            let session = token.acquire(&self.module, client, Lane::Search)?;
            self.logins.log_in(&session, client, pins)?;
        }
        Ok(())
    }

    /// A turn to change a token, logged in.
    pub fn session_to_change<'t>(
        &'t self,
        client: &Client<'_>,
        token: &'t Arc<Token>,
        pins: Pins<'_>,
    ) -> Result<PooledSession<'t>, Error> {
        let session = token.acquire(&self.module, client, Lane::Slow)?;
        self.logins.log_in(&session, client, pins)?;
        self.contents.invalidate(token);
        Ok(session)
    }

    /// All that is on a token that is about to be changed.
    pub fn contents_to_change(
        &self,
        session: &PooledSession<'_>,
        client: &Client<'_>,
    ) -> Result<Contents, Error> {
        let contents = Contents::read(session, client)?;
        contents.check_whole()?;
        Ok(contents)
    }

    /// A search for whatever key the URI of a request leads to.
    pub fn search<'a>(
        &'a self,
        client: &'a Client<'a>,
        query: &'a KeyQuery<'a>,
        uri: &'a Uri,
    ) -> Search<'a> {
        Search {
            module: &self.module,
            contents: &self.contents,
            client,
            logins: &self.logins,
            uri,
            pins: query.pins(),
            expected: None,
            given: None,
            opened: false,
            last_token: None,
            preferred: self.keys.preferred(&query.meaning()),
            since: Instant::now(),
        }
    }
}

/// The URI of a request that may leave it away.
pub(crate) fn any(uri: &Option<UriText>) -> &str {
    uri.as_deref().unwrap_or("pkcs11:")
}
