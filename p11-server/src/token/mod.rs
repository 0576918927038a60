//! The engine: requests enter by the [`Service`] trait, calls of one PKCS#11 module leave.
//!
//! | room | its job |
//! |---|---|
//! | `module` | the loaded module, and the gate that a reload closes |
//! | `activity` | which calls run, and which are stuck |
//! | `raw` | `C_SignInit` and `C_Sign`: the only unsafe code |
//! | `slots` | which tokens are there |
//! | `session` | one token and its sessions |
//! | `login` | the PIN guard, and every `C_Login` |
//! | `objects` | attributes of keys and certificates |
//! | `select` | the one key that a URI means |
//! | `keys` | keys that were found, and the memory of what URIs mean |
//! | `schemes` | what a key can sign, and by which mechanism |
//! | `sign` | the two calls |
//! | `encode` | bytes of PKCS#11 to bytes of TLS and back |
//!
//! A request that fails on the token is tried once more, after what its CKR code calls for: the key
//! is looked up again, the token's sessions are given up, or the module is reloaded.

mod activity;
mod encode;
mod keys;
mod login;
mod module;
mod objects;
mod raw;
mod schemes;
mod select;
mod session;
mod sign;
mod slots;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use cryptoki::context::Function;
use cryptoki::error::RvError;
use p11_proto::message::{Key as KeyMessage, OpenKey};
use p11_proto::{Identity, Pin};
use p11_uri::Uri;
use tracing::{info, warn};

use self::keys::{Key, Memory};
use self::login::Guard;
use self::module::{Call, Module};
use self::objects::Object;
use self::select::Search;
use self::slots::Tokens;
use crate::error::Error;
use crate::service::{Access, Service, SignRequest, Signed};

/// What a request to a token should take at most.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A token or key that is not there may have come into being since the module was initialised, and
/// some modules do not look again by themselves. So often may a miss cause a reload.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The keys of one PKCS#11 module, for many clients at once.
pub struct Engine {
    module: Module,
    tokens: Tokens,
    memory: Memory,
    guard: Guard,
    settings: RwLock<Arc<Settings>>,
}

/// What the operator decides and may change while the engine runs.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The PIN for requests that bring none.
    pub pin: Option<Pin>,
    /// The server's URI: its path attributes replace those of every request.
    pub scope: Uri,
}

impl Engine {
    /// Loads the module. Call [`Engine::start`] next.
    ///
    /// # Errors
    /// [`Error::Load`] where the file is no usable PKCS#11 module.
    pub fn load(module: &Path, settings: Settings) -> Result<Engine, Error> {
        Ok(Engine {
            module: Module::load(module)?,
            tokens: Tokens::default(),
            memory: Memory::new(),
            guard: Guard::new()?,
            settings: RwLock::new(Arc::new(settings)),
        })
    }

    /// Initialises the module. Where that fails, it is tried again by later requests, with back-off.
    ///
    /// # Errors
    /// [`Error::ModuleUnavailable`] says when the next try is due.
    pub fn start(&self) -> Result<(), Error> {
        self.module.enter(DEADLINE).map(drop)
    }

    /// The operator has changed the settings, or says that PINs may be tried again.
    pub fn reconfigure(&self, settings: Settings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.guard.forget_all();
        self.memory.forget_all();
    }

    /// Finalises the module, unless a call is stuck in it. No request succeeds afterwards.
    pub fn shut_down(&self) {
        self.module.shut_down();
    }

    /// What is stuck, if anything is: no call on it has returned for two deadlines.
    pub fn stuck(&self) -> Option<String> {
        self.module.stuck()
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Finds the key that is asked for and does something with it, with one retry where the trouble
    /// is of a kind that a fresh start may heal.
    fn with_key<T>(
        &self,
        asked: &Asked<'_>,
        job: impl Fn(&Call<'_>, &Arc<Key>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (epoch, error) = match self.attempt(asked, &job) {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        match Remedy::of(&error) {
            Remedy::None | Remedy::RenewOnly => return Err(error),
            Remedy::FindAgain | Remedy::Renew => info!("trying once more after this: {error}"),
            Remedy::Reload => self.module.reload(epoch, &error.to_string())?,
            Remedy::LookAgain => self.look_again(epoch, error)?,
        }
        let (epoch, error) = match self.attempt(asked, &job) {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        // Sessions and handles were not the trouble, so the module may be: for the next request.
        if let Remedy::FindAgain | Remedy::Renew = Remedy::of(&error)
            && let Err(later) = self.module.reload(epoch, &error.to_string())
        {
            info!("{later}");
        }
        Err(error)
    }

    /// One try. When it fails, what failed is not used again; the epoch says in which life of the
    /// module that was.
    fn attempt<T>(
        &self,
        asked: &Asked<'_>,
        job: impl Fn(&Call<'_>, &Arc<Key>) -> Result<T, Error>,
    ) -> Result<T, (u64, Error)> {
        let call = self.module.enter(DEADLINE).map_err(|error| (0, error))?;
        let mut key = None;
        let outcome = self
            .key(&call, asked)
            .and_then(|found| job(&call, key.insert(found)));
        outcome.map_err(|error| {
            match (Remedy::of(&error), key) {
                (Remedy::FindAgain, Some(key)) => self.memory.forget(&key),
                (Remedy::Renew | Remedy::RenewOnly, Some(key)) => {
                    key.token.give_up(&call, key.era);
                }
                // It failed before there was a key, on a token that the error does not name.
                (Remedy::Renew | Remedy::RenewOnly, None) => {
                    for token in self.tokens.known() {
                        token.give_up(&call, token.era(&call));
                    }
                }
                _ => {}
            }
            (call.epoch(), error)
        })
    }

    /// The key that is asked for, on a token that is logged in if it wants to be: from memory, which
    /// costs no call, else by a search.
    fn key(&self, call: &Call<'_>, asked: &Asked<'_>) -> Result<Arc<Key>, Error> {
        if let Some(key) = self.memory.recall(&asked.name, asked.wanted)
            && key.era == key.token.era(call)
        {
            asked.access.check(&key.token.facts(), Some(&key.facts))?;
            if key.trusted() || recheck(call, &key)? {
                self.guard.log_in(call, &key.token, asked.pin())?;
                return Ok(key);
            }
            self.memory.forget(&key);
        }
        let uri = Uri::parse(asked.uri)?.scoped_by(&asked.settings.scope);
        if !uri.replaced.is_empty() {
            warn!(
                "the request for {} is held to the server's own URI {}: {} replaced",
                asked.name,
                asked.settings.scope.without_query(),
                uri.replaced.join(", ")
            );
        }
        let search = Search {
            call,
            guard: &self.guard,
            uri: &uri.uri,
            pin: asked.pin(),
            wanted: asked.wanted,
            opened: asked.opened,
            access: asked.access,
            preferred: self.memory.meant(&asked.name),
        };
        let key = Arc::new(search.run(&self.tokens.scan(call)?)?);
        self.memory
            .remember(&asked.name, &key, asked.wanted.is_none());
        self.memory.remember(&key.message.uri, &key, false);
        Ok(key)
    }

    /// Nothing was found: reload the module, if it has not been initialised just now.
    fn look_again(&self, epoch: u64, missing: Error) -> Result<(), Error> {
        let wait = LOOK_AGAIN.saturating_sub(self.module.age());
        if !wait.is_zero() {
            return Err(missing.with_hint(&format!(
                "; what was added by another program may show in {} s at the latest",
                wait.as_secs() + 1
            )));
        }
        match self
            .module
            .reload(epoch, "looking for a token or key that was not there")
        {
            Ok(()) => Ok(()),
            Err(_) => Err(missing),
        }
    }
}

impl Service for Engine {
    fn trouble(&self) -> Option<String> {
        let stuck = || {
            Some(format!(
                "no PKCS#11 call returns on {}",
                self.module.stuck()?
            ))
        };
        self.module.trouble().or_else(stuck)
    }

    fn open_key(&self, request: &OpenKey, access: &dyn Access) -> Result<Arc<KeyMessage>, Error> {
        let wanted = request
            .spki
            .as_ref()
            .map(|spki| Identity::of(spki))
            .transpose();
        let wanted = wanted.map_err(|error| Error::BadRequest(error.to_string()))?;
        let asked = Asked::new(
            &request.uri,
            request.pin.as_ref(),
            wanted,
            false,
            access,
            self,
        )?;
        self.with_key(&asked, |_, key| Ok(key.message.clone()))
    }

    fn sign(&self, request: &SignRequest<'_>, access: &dyn Access) -> Result<Signed, Error> {
        let asked = Asked::new(
            request.uri,
            request.pin,
            request.identity,
            true,
            access,
            self,
        )?;
        self.with_key(&asked, |call, key| {
            let plan = key.plan(request.scheme)?;
            let signature = sign::sign(call, &self.guard, key, plan, request.message, asked.pin())?;
            Ok(Signed {
                signature,
                key: key.message.clone(),
            })
        })
    }
}

/// A key, as a request asks for it.
struct Asked<'a> {
    /// The URI as it came.
    uri: &'a str,
    /// The URI without PIN, by which the key is remembered.
    name: Cow<'a, str>,
    /// The PIN of the URI or of the request.
    own_pin: Option<Cow<'a, Pin>>,
    /// The only key that will do.
    wanted: Option<Identity>,
    /// Whether it was opened before, so that another key in its place is a change.
    opened: bool,
    access: &'a dyn Access,
    settings: Arc<Settings>,
}

impl<'a> Asked<'a> {
    fn new(
        uri: &'a str,
        pin: Option<&'a Pin>,
        wanted: Option<Identity>,
        opened: bool,
        access: &'a dyn Access,
        engine: &Engine,
    ) -> Result<Asked<'a>, Error> {
        let mut asked = Asked {
            uri,
            name: Cow::Borrowed(uri),
            own_pin: pin.map(Cow::Borrowed),
            wanted,
            opened,
            access,
            settings: engine.settings(),
        };
        // Without a query there is nothing to look at before the key is found.
        if uri.contains('?') {
            let parsed = Uri::parse(uri)?;
            parsed.require_request_form()?;
            asked.name = Cow::Owned(parsed.without_query().to_string());
            if let Some(pin) = parsed.pin_value() {
                asked.own_pin = Some(Cow::Owned(Pin::from(pin.clone())));
            }
        }
        Ok(asked)
    }

    fn pin(&self) -> Option<&Pin> {
        self.own_pin.as_deref().or(self.settings.pin.as_ref())
    }
}

/// Whether a handle that lay idle still leads to the same key.
fn recheck(call: &Call<'_>, key: &Key) -> Result<bool, Error> {
    let session = key.token.lend(call)?;
    let public = Object::reread(&session, key.handle)
        .and_then(|object| select::public_half(&session, &object));
    match public {
        Ok(public) => {
            session.finish();
            key.checked();
            Ok(public.identity() == key.identity())
        }
        Err(error) => match Remedy::of(&error) {
            Remedy::FindAgain | Remedy::None => Ok(false),
            _ => Err(error),
        },
    }
}

/// What a failure calls for before the one retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// It would fail again.
    None,
    /// The handle is stale: find the key again.
    FindAgain,
    /// Give up sessions and login of the token, and list the slots.
    Renew,
    /// The same, but without a retry: a failed `C_Login` is not repeated within a request.
    RenewOnly,
    /// `C_Finalize`, `C_Initialize`.
    Reload,
    /// Reload, if there was none for a while.
    LookAgain,
}

impl Remedy {
    fn of(error: &Error) -> Remedy {
        let (rv, function) = match error {
            Error::Module { rv, function } => (rv, function),
            Error::TokenNotFound(_) | Error::KeyNotFound(_) => return Remedy::LookAgain,
            _ => return Remedy::None,
        };
        match rv {
            RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid => Remedy::FindAgain,
            RvError::CryptokiNotInitialized => Remedy::Reload,
            RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::UserNotLoggedIn
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::DeviceRemoved
            | RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::HostMemory
            | RvError::FunctionFailed
            | RvError::GeneralError => match function {
                Function::Login => Remedy::RenewOnly,
                _ => Remedy::Renew,
            },
            _ => Remedy::None,
        }
    }
}

/// Locks, whatever a thread that panicked may have left: each critical section leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
