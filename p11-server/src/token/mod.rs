//! The engine: requests enter by the [`Service`] trait, calls of one PKCS#11 module leave.
//!
//! | room | its job |
//! |---|---|
//! | `asked` | a request's URI and PIN, beside the server's own |
//! | `module` | the loaded module, and the gate that a reload closes |
//! | `activity` | which calls run, and which are stuck |
//! | `raw` | `C_SignInit` and `C_Sign`: the only unsafe code |
//! | `slots` | which tokens are there, and which one is meant |
//! | `session` | one token: its sessions, who borrows one, who takes all |
//! | `guard` | which PINs a token has refused |
//! | `login` | every `C_Login`, behind the guard |
//! | `objects` | attributes of keys and certificates |
//! | `pairs` | which halves belong together |
//! | `select` | the one key that a URI means |
//! | `keys` | keys that were found, and the memory of what URIs mean |
//! | `schemes` | what a key can sign, and by which mechanism |
//! | `sign` | the two calls |
//! | `encode` | bytes of PKCS#11 to bytes of TLS and back |
//! | `heal` | one more try, after what the CKR code calls for |
//! | `inventory` | which tokens and keys are there |
//! | `certificates` | certificates, with those of their issuers, or for storing |
//! | `create`, `delete` | making and deleting keys |
//! | `init`, `pin` | making tokens ready for use, changing PINs |

mod activity;
mod asked;
mod certificates;
mod create;
mod delete;
mod encode;
mod guard;
mod heal;
mod init;
mod inventory;
mod keys;
mod login;
mod module;
mod objects;
mod pairs;
mod pin;
mod raw;
mod schemes;
mod select;
mod session;
mod sign;
mod slots;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use p11_proto::message::{self, Key as KeyMessage, OpenKey};
use p11_proto::{Identity, Pin};
use p11_uri::Uri;

use self::asked::Asked;
use self::guard::Guard;
use self::heal::Remedy;
use self::keys::{Key, Memory};
use self::module::{Call, Module};
use self::objects::Object;
use self::select::Search;
use self::slots::Tokens;
use crate::error::Error;
use crate::service::{Access, Service, SignRequest, Signed};

/// What a request to a token should take at most.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The same for what a card may take minutes for: making an RSA key, initialising a token.
pub const LONG_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// The keys of one PKCS#11 module, for many clients at once.
pub struct Engine {
    module: Module,
    tokens: Tokens,
    memory: Memory,
    guard: Guard,
    settings: RwLock<Arc<Settings>>,
    /// Held by who makes a token ready: the next one finds it made.
    making_ready: Mutex<()>,
}

/// What the operator decides and may change while the engine runs.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The PIN for requests that bring none.
    pub pin: Option<Pin>,
    /// Where the operator has set it, for people; `None` for a default that nobody has set.
    pub pin_origin: Option<String>,
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
            making_ready: Mutex::default(),
        })
    }

    /// Initialises the module if it is down. Where that fails, the next call of this or the next request
    /// tries it again, with back-off.
    ///
    /// # Errors
    /// [`Error::ModuleUnavailable`] says when the next try is due.
    pub fn start(&self) -> Result<(), Error> {
        self.module.enter(DEADLINE).map(drop)
    }

    /// The operator has changed the settings, or says that PINs may be tried again.
    pub fn reconfigure(&self, settings: Settings) {
        let mut current = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let same_pin = match (&current.pin, &settings.pin) {
            (Some(old), Some(new)) => login::same(old, new),
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
                    *login = login::Login::Out;
                }
            }
        }
        self.guard.forget_all();
        self.memory.forget_all();
    }

    /// Logs out, closes all sessions and finalises the module, unless a call is stuck in it. No request succeeds afterwards.
    pub fn shut_down(&self) {
        self.module.shut_down(|call| {
            for token in self.tokens.known() {
                token.log_out(call);
            }
        });
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

    /// The key that is asked for, on a token that is logged in if it wants to be: from memory, which
    /// costs no call, else by a search.
    fn key(&self, call: &Call<'_>, asked: &Asked<'_>) -> Result<Arc<Key>, Error> {
        let known = self.memory.recall(&asked.name, asked.wanted);
        if let Some(key) = &known
            && key.era == key.token.era(call)
        {
            asked.access.check(&key.token.facts(), Some(&key.facts))?;
            if key.trusted() || recheck(call, key)? {
                self.guard.log_in(call, &key.token, asked.pins())?;
                return Ok(key.clone());
            }
            self.memory.forget(key);
        }
        let uri = asked.scoped()?;
        let search = Search {
            call,
            guard: &self.guard,
            uri: &uri,
            pins: asked.pins(),
            wanted: asked.wanted,
            opened: asked.opened,
            home: known.as_ref().map(|key| &*key.token),
            access: asked.access,
            preferred: self.memory.meant(&asked.name),
        };
        let key = Arc::new(search.run(&self.tokens.scan(call)?)?);
        self.memory
            .remember(&asked.name, &key, asked.wanted.is_none());
        self.memory.remember(&key.message.uri, &key, false);
        Ok(key)
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
        let asked = Asked {
            wanted,
            ..self.asked(&request.uri, request.pin.as_ref(), access)?
        };
        self.heal(DEADLINE, |call, culprit| {
            let key = culprit.insert(self.key(call, &asked)?);
            Ok(key.message.clone())
        })
    }

    fn sign(&self, request: &SignRequest<'_>, access: &dyn Access) -> Result<Signed, Error> {
        let asked = Asked {
            wanted: request.identity,
            opened: true,
            ..self.asked(request.uri, request.pin, access)?
        };
        self.heal(DEADLINE, |call, culprit| {
            let key = culprit.insert(self.key(call, &asked)?);
            let plan = key.plan(request.scheme)?;
            let signature =
                sign::sign(call, &self.guard, key, plan, request.message, asked.pins())?;
            Ok(Signed {
                signature,
                key: key.message.clone(),
            })
        })
    }

    fn list_tokens(&self, access: &dyn Access) -> Result<Vec<message::Token>, Error> {
        self.tokens_in_sight(access)
    }

    fn list_keys(
        &self,
        request: &message::ListKeys,
        access: &dyn Access,
    ) -> Result<Vec<message::Object>, Error> {
        self.objects_in_sight(request, access)
    }

    fn public_key(
        &self,
        request: &message::GetPublicKey,
        access: &dyn Access,
    ) -> Result<message::PublicKey, Error> {
        self.public_half(request, access)
    }

    fn certificates(
        &self,
        request: &message::GetCertificates,
        access: &dyn Access,
    ) -> Result<Vec<message::Certificate>, Error> {
        self.chains(request, access)
    }

    fn import_certificate(
        &self,
        request: &message::ImportCertificate,
        access: &dyn Access,
    ) -> Result<String, Error> {
        self.store_certificate(request, access)
    }

    fn create_key(
        &self,
        request: &message::CreateKey,
        access: &dyn Access,
    ) -> Result<message::PublicKey, Error> {
        self.make_key(request, access)
    }

    fn delete_key(
        &self,
        request: &message::DeleteKey,
        several: bool,
        access: &dyn Access,
    ) -> Result<Vec<String>, Error> {
        self.remove_key(request, several, access)
    }

    fn init_token(
        &self,
        request: &message::InitToken,
        access: &dyn Access,
    ) -> Result<message::TokenReady, Error> {
        self.make_ready(request, access)
    }

    fn change_pin(
        &self,
        request: &message::ChangePin,
        access: &dyn Access,
    ) -> Result<message::PinChanged, Error> {
        self.change(request, access)
    }
}

/// Whether a handle that lay idle still leads to the same key.
fn recheck(call: &Call<'_>, key: &Key) -> Result<bool, Error> {
    let session = key.token.lend(call)?;
    let public = Object::private_key(&session, key.handle)
        .and_then(|object| pairs::public_half(&session, &object));
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

/// Locks, whatever a thread that panicked may have left: each critical section leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
