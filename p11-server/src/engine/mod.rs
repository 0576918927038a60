//! The engine: requests come in as messages of protocol 1, and calls of one PKCS#11 module go out.
//!
//! Each module imports only modules below it.
//!
//! | module | what it does |
//! |---|---|
//! | `manage` | list tokens and keys, store certificates, make and delete keys, initialise tokens, change PINs |
//! | `status` | how the module and its tokens fare |
//! | `recovery` | one more try, after what the CKR code calls for |
//! | `core` | what all requests share |
//! | `find` | the key that a URI means: objects, pairs, search, the cache of keys |
//! | `query` | a request's URI and PIN beside the operator's |
//! | `sign` | what a key can sign, by which mechanism, and the two calls |
//! | `login` | every call that takes a PIN, behind the rules for PINs |
//! | `token` | the tokens in the slots, and their sessions |
//! | `module` | the loaded module, and the calls that run in it |
//! | `counts` | what was done since the start |
//! | `settings` | what the operator decides, and deadlines |
//! | `lock` | the locks of the engine, and their order |

mod core;
mod counts;
mod find;
mod lock;
mod login;
mod manage;
mod module;
mod query;
mod recovery;
mod settings;
mod sign;
mod status;
mod token;

use std::path::Path;
use std::time::Instant;

use cryptoki::error::RvError;
use p11_proto::message::{Message, OpenKey, OpenedKey, Pong, Sign, Signature, Status};
use p11_proto::spki::PublicKey;
use p11_proto::{Identity, Request, Response, frame};

use self::core::Core;
use self::query::KeyQuery;
use crate::error::Error;
use crate::service::{Access, Service};

pub use self::module::HungCall;
#[cfg(feature = "daemon")]
pub(crate) use self::module::unblock_signals_in_forks;
pub use self::settings::{Settings, Timeouts, Wording};

/// How the server names itself to clients.
pub(crate) const SERVER: &str = concat!("tedge-p11-server ", env!("CARGO_PKG_VERSION"));
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The keys of one PKCS#11 module, for many clients at once.
pub struct Engine(Core);

impl Engine {
    /// Loads the module. Call [`Engine::start`] next.
    ///
    /// # Errors
    /// [`Error::Load`] where the file is no usable PKCS#11 module.
    pub fn load(module: &Path, settings: Settings) -> Result<Engine, Error> {
        Engine::load_with(module, settings, Timeouts::default())
    }

    /// The same with other deadlines than the usual ones.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_with(
        module: &Path,
        settings: Settings,
        timeouts: Timeouts,
    ) -> Result<Engine, Error> {
        Core::load(module, settings, timeouts).map(Engine)
    }

    /// Initialises the module if it is down. Where that fails, the next call of this or the next request
    /// tries it again, with back-off.
    ///
    /// # Errors
    /// [`Error::ModuleUnavailable`] says when the next try is due.
    pub fn start(&self) -> Result<(), Error> {
        self.0.start()
    }

    /// The operator has changed the settings, or says that refused PINs may be tried once more.
    pub fn reconfigure(&self, settings: Settings) {
        self.0.reconfigure(settings);
    }

    /// The program is about to end: requests that are at work go on, but the module is not reloaded any more.
    pub fn stop_reloads(&self) {
        self.0.module.stop_reloads();
    }

    /// Logs out, closes all sessions and finalises the module, unless a call hangs in it. No request succeeds afterwards.
    pub fn shut_down(&self) {
        self.0.module.shut_down(|| {
            for token in self.0.registry.known() {
                token.close_all(&self.0.module);
            }
        });
    }

    /// The same until the next request, which initialises the module again. What is known of PINs stays, so that one
    /// that a token has refused is not sent to it again by a program that comes and goes.
    pub fn park(&self) {
        let close = || {
            for token in self.0.registry.known() {
                token.close_all(&self.0.module);
            }
        };
        self.0.module.park(close, || self.0.reset());
    }

    /// Whether both have loaded the same module, by whatever path. Its sessions and logins are the same for both, so one engine
    /// should do.
    pub fn has_same_module(&self, other: &Engine) -> bool {
        self.0.module.is_same(&other.0.module)
    }

    /// What is wrong with the module, `None` if nothing is. Calls no token.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble()
    }

    /// A call of the module that has not returned within its limit.
    pub fn hung(&self) -> Option<HungCall> {
        self.0.module.hung()
    }

    fn open_key(&self, request: &OpenKey, access: &dyn Access) -> Result<OpenedKey, Error> {
        let expected = request.spki.as_ref().map(|spki| Identity::of(spki));
        let expected = expected.transpose();
        let given = request.spki.as_ref();
        let query = KeyQuery {
            expected: expected.map_err(|error| Error::BadRequest(error.to_string()))?,
            // Of another kind it is no key of a token.
            given: given.and_then(|spki| PublicKey::from_spki(spki).ok()),
            ..self.0.query(&request.uri, request.pin.as_ref(), access)?
        };
        self.0.retry(access, |client, failed| {
            let key = failed.insert(self.0.key(client, &query)?);
            if key.lies_idle(self.0.module.timeouts().idle) {
                self.0.session_of(client, key)?;
            }
            let meaning = query.expected.is_none().then(|| query.meaning());
            let opened = key.opened(meaning.as_deref());
            match opened.schemes.is_empty() {
                true => Err(Error::NotSupported(format!(
                    "{} cannot sign: its token has no mechanism for it that it does not refuse",
                    key.uri()
                ))),
                false => Ok(opened),
            }
        })
    }

    fn sign(&self, request: &Sign, access: &dyn Access) -> Result<Signature, Error> {
        let began = Instant::now();
        let query = KeyQuery {
            expected: Some(request.identity),
            opened: true,
            ..self.0.query(&request.uri, request.pin.as_ref(), access)?
        };
        self.0.retry(access, |client, failed| {
            let key = failed.insert(self.0.key(client, &query)?);
            let mut session = self.0.session_of(client, key)?;
            let logins = &self.0.logins;
            let mut signed = key.sign(&session, client, logins, request.scheme, &request.message);
            if let Err(error) = &signed
                && error.rv() == Some(RvError::UserNotLoggedIn)
                && !key.needs_login
            {
                // Its token shows it without a login, and has it sign after one.
                drop(session);
                self.0.log_in(client, &key.token, query.pins())?;
                session = self.0.session_of(client, key)?;
                signed = key.sign(&session, client, logins, request.scheme, &request.message);
            }
            let signature = signed?;
            session.life().set_signed();
            self.0.counts.signed(began);
            Ok(Signature::new(signature))
        })
    }
}

impl Service for Engine {
    fn call(&self, request: &Request, access: &dyn Access) -> Result<Response, Error> {
        let answer = self.answer(request, access);
        answer.inspect_err(|error| self.0.counts.failed(error))
    }
}

impl Engine {
    fn answer(&self, request: &Request, access: &dyn Access) -> Result<Response, Error> {
        let core = &self.0;
        Ok(match request {
            Request::Ping(_) => Response::Pong(Pong::new(SERVER, frame::VERSION)),
            Request::Status(_) => {
                let trouble = core.trouble();
                let status = Status::new(SERVER, trouble.is_none()).trouble(trouble);
                let status = status.version(VERSION.to_owned());
                Response::Status(status.details(Box::new(core.status())))
            }
            Request::OpenKey(open) => Response::Key(self.open_key(open, access)?),
            Request::Sign(sign) => Response::Signature(self.sign(sign, access)?),
            Request::ListTokens(_) => Response::Tokens(core.list_tokens(access)?),
            Request::ListKeys(list) => Response::Objects(core.list_keys(list, access)?),
            Request::GetPublicKey(get) => Response::PublicKey(core.get_public_key(get, access)?),
            Request::GetCertificates(get) => {
                Response::Certificates(core.get_certificates(get, access)?)
            }
            Request::ImportCertificate(import) => {
                Response::Imported(core.import_certificate(import, access)?)
            }
            Request::CreateKey(create) => Response::PublicKey(core.create_key(create, access)?),
            Request::DeleteKey(delete) => Response::Deleted(core.delete_key(delete, access)?),
            Request::DeleteCertificate(delete) => {
                Response::Deleted(core.delete_certificate(delete, access)?)
            }
            Request::InitToken(init) => Response::TokenReady(core.init_token(init, access)?),
            Request::ChangePin(change) => Response::PinChanged(core.change_pin(change, access)?),
            other => {
                let name = other.name();
                return Err(Error::NotSupported(format!("{name} is not known here")));
            }
        })
    }
}
