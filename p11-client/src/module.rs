//! A PKCS#11 module in this process, behind the engine that the server uses too.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use p11_proto::message::{Request, Response};
use p11_proto::{ErrorCode, Failure, Pin, UriText};
use p11_server::{Engine, Service, Settings, Unrestricted, Wording};
use p11_uri::Uri;

use crate::error::Error;
use crate::retry::Retries;
use crate::socket::Deadline;
use crate::transport::Transport;

/// How long a request is repeated while too many of others wait for the token.
const BUSY_FOR: Duration = Duration::from_secs(30);
/// thin-edge's conventional PIN.
const DEFAULT_PIN: &str = "123456";

/// Which module to load, and what the engine is told about its tokens.
#[derive(Clone, Debug)]
pub struct ModuleConfig {
    path: PathBuf,
    uri: Option<UriText>,
    pin: Option<Pin>,
    /// Whether [`DEFAULT_PIN`] is tried once where there is no other.
    default_pin: bool,
    refusals: Option<PathBuf>,
}

impl ModuleConfig {
    /// The module in this file, with all its tokens, and without a PIN.
    pub fn new(path: impl AsRef<Path>) -> Self {
        ModuleConfig {
            path: path.as_ref().to_owned(),
            uri: None,
            pin: None,
            default_pin: false,
            refusals: None,
        }
    }

    /// The PIN for requests that bring none. It is the only one that its token gets; a request with another is refused.
    #[must_use]
    pub fn pin(mut self, pin: impl Into<Option<Pin>>) -> Self {
        self.pin = pin.into();
        self
    }

    /// A URI whose attributes replace those of every request (RFC 7512). Its `pin-value` or `pin-source` wins over
    /// [`ModuleConfig::pin`].
    #[must_use]
    pub fn uri(mut self, uri: impl Into<UriText>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// A folder, readable by this user alone, in which refused PINs are remembered from one process to the next, as
    /// salted digests. Without it a program that starts again and again with a wrong PIN can use up a token's tries.
    #[must_use]
    pub fn refusals(mut self, folder: impl Into<Option<PathBuf>>) -> Self {
        self.refusals = folder.into();
        self
    }

    /// Has thin-edge's conventional PIN tried once where no other is set.
    #[must_use]
    pub fn default_pin(mut self) -> Self {
        self.default_pin = true;
        self
    }

    fn settings(&self) -> Result<Settings, Error> {
        let scope = Uri::parse(self.uri.as_deref().unwrap_or("pkcs11:")).map_err(bad_uri)?;
        let source = scope.pin_source_path().map_err(bad_uri)?;
        let (pin, pin_origin) = match (scope.pin_value(), source) {
            (Some(pin), _) => {
                let origin = "the pin-value of the URI".to_owned();
                (Some(Pin::from(pin.clone())), Some(origin))
            }
            (None, Some(path)) => {
                let origin = format!("{}, the pin-source of the URI", path.display());
                (Some(read_pin(&path)?), Some(origin))
            }
            (None, None) => (self.pin.clone(), None),
        };
        let mut settings = Settings::default();
        settings.wording = wording();
        settings.pin_origin = pin_origin;
        settings.pin_is_default = pin.is_none() && self.default_pin;
        settings.pin = pin.or_else(|| settings.pin_is_default.then(|| DEFAULT_PIN.into()));
        settings.refusals.clone_from(&self.refusals);
        settings.scope = scope;
        Ok(settings)
    }
}

/// A PKCS#11 module that is loaded in this process.
///
/// All of one module share one engine, with its sessions, its login and its rules for PINs. The module is initialised by
/// the first request, and finalised when the last of them is dropped; the engine remembers the PINs that its tokens have
/// refused, and sends none again if the module is loaded once more. Where more threads wait for a token than the engine lets
/// wait, a request is repeated for half a minute, unless it changes the token. A module that another part of the program has
/// initialised is left alone. No trouble in it ends the process.
///
/// After `fork(2)` the child is answered [`Error::Forked`]: PKCS#11 gives it no use of what its parent has opened.
pub struct ModuleTransport {
    engine: Arc<Engine>,
    pid: u32,
}

/// An engine of this process, and how many use it.
struct InUse {
    file: Option<(u64, u64)>,
    settings: Settings,
    engine: Arc<Engine>,
    pid: u32,
    users: usize,
}

impl InUse {
    /// One more user, of the same configuration, or of another where there is no user now.
    fn join(&mut self, path: PathBuf, settings: Settings) -> Result<ModuleTransport, Error> {
        let differing = differing(&self.settings, &settings);
        if !differing.is_empty() {
            if self.users > 0 {
                let differs = differing.join(" and ");
                return Err(Error::ModuleInUse { path, differs });
            }
            self.engine.reconfigure(settings.clone());
            self.settings = settings;
        }
        self.users += 1;
        Ok(self.transport())
    }

    fn transport(&self) -> ModuleTransport {
        ModuleTransport {
            engine: self.engine.clone(),
            pid: self.pid,
        }
    }
}

static ENGINES: Mutex<Vec<InUse>> = Mutex::new(Vec::new());

impl ModuleTransport {
    /// Loads the module, or uses the one that is loaded, by whatever path.
    ///
    /// # Errors
    /// `ModuleUnavailable` where the file is no usable module, `BadUri`; [`Error::ModuleInUse`] where the module is in use
    /// with another PIN, URI or folder of refusals; [`Error::Forked`] where it is that of a parent process.
    pub fn load(config: ModuleConfig) -> Result<Self, Error> {
        let settings = config.settings()?;
        let file = file_id(&config.path);
        let mut engines = engines();
        let load = || Engine::load(&config.path, settings.clone()).map_err(failure);
        let mut loaded = None;
        let mut place = engines
            .iter()
            .position(|known| file.is_some() && known.file == file);
        if place.is_none() {
            // What a name without a folder leads to is known when dlopen(3) has found it.
            let engine = load()?;
            place = engines
                .iter()
                .position(|known| known.engine.has_same_module(&engine));
            loaded = Some(engine);
        }
        if let Some(known) = place.and_then(|place| engines.get_mut(place)) {
            if known.pid == process::id() {
                return known.join(config.path, settings);
            }
            if known.users > 0 {
                return Err(Error::Forked);
            }
        }
        let engine = loaded.map_or_else(load, Ok)?;
        let in_use = InUse {
            file,
            settings,
            engine: Arc::new(engine),
            pid: process::id(),
            users: 1,
        };
        let transport = in_use.transport();
        engines.push(in_use);
        if let Some(place) = place {
            // What is a parent's is not dropped: a lock in it may be held by a thread that this process has not.
            std::mem::forget(engines.swap_remove(place));
        }
        Ok(transport)
    }

    /// The engine itself, for what requests do not tell: [`Engine::hung`], [`Engine::trouble`].
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Transport for ModuleTransport {
    fn call(&self, request: &Request) -> Result<Response, Error> {
        self.call_within(request, Duration::MAX)
    }

    fn call_within(&self, request: &Request, limit: Duration) -> Result<Response, Error> {
        if self.pid != process::id() {
            return Err(Error::Forked);
        }
        let deadline = Deadline::after(BUSY_FOR.min(limit));
        let mut retries = Retries::new(deadline, Duration::ZERO, BUSY_FOR);
        loop {
            match self.engine.call(request) {
                Err(error) if error.is_busy() && !request.changes_token() => {
                    retries.wait_after(error)?;
                }
                answer => return answer,
            }
        }
    }
}

/// For a program that has loaded the engine by itself.
impl Transport for Engine {
    fn call(&self, request: &Request) -> Result<Response, Error> {
        Service::call(self, request, &Unrestricted).map_err(failure)
    }
}

impl Drop for ModuleTransport {
    fn drop(&mut self) {
        // A child of fork(2) leaves alone what is its parent's, the lock too: a thread that it has not may hold it.
        if self.pid != process::id() {
            return;
        }
        let mut engines = engines();
        let mine = |known: &&mut InUse| Arc::ptr_eq(&known.engine, &self.engine);
        if let Some(known) = engines.iter_mut().find(mine) {
            known.users -= 1;
            if known.users == 0 {
                // Under the lock: who loads the module now waits until it is finalised. The engine stays, since a PIN that it
                // knows to be wrong would be tried again by another.
                known.engine.park();
            }
        }
    }
}

impl std::fmt::Debug for ModuleTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleTransport").finish_non_exhaustive()
    }
}

fn engines() -> MutexGuard<'static, Vec<InUse>> {
    ENGINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the engine's texts name what is configured here.
fn wording() -> Wording {
    let mut wording = Wording::default();
    wording.pin = "ModuleConfig::pin or device.cryptoki.pin";
    wording.reload = "load the module with a changed PIN or URI when all its clients are dropped";
    wording.refusals = "Name one by ModuleConfig::refusals, or in RUNTIME_DIRECTORY where tedge.toml is loaded: of this user alone, and gone \
                        after a boot";
    wording
}

/// What two configurations of one module differ in.
fn differing(one: &Settings, other: &Settings) -> Vec<&'static str> {
    let pin = |settings: &Settings| (settings.pin.clone(), settings.pin_is_default);
    // Without the PIN in it, which is compared as such, and without the module's path.
    let uri = |settings: &Settings| {
        let vendor = settings.scope.vendor_query();
        let vendor = vendor.map(|(name, value)| (name.to_owned(), value.to_vec()));
        (settings.scope.without_query(), vendor.collect::<Vec<_>>())
    };
    let folder = |settings: &Settings| {
        let folder = settings.refusals.as_ref()?;
        Some(fs::canonicalize(folder).unwrap_or_else(|_| folder.clone()))
    };
    let all = [
        ("PIN", pin(one) != pin(other)),
        ("URI", uri(one) != uri(other)),
        ("folder of refusals", folder(one) != folder(other)),
    ];
    let differing = all.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(what, _)| what).collect()
}

/// By which dlopen(3) tells whether a library is loaded already. A name without a folder is not that of a file here.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())?;
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

fn failure(error: p11_server::Error) -> Error {
    Failure::from(&error).into()
}

fn bad_uri(error: p11_uri::Error) -> Error {
    Failure::new(
        ErrorCode::BadUri,
        format!("the URI of the module cannot be used: {error}"),
    )
    .into()
}

/// The PIN in a file; line ends at its end are not part of it.
fn read_pin(path: &Path) -> Result<Pin, Error> {
    let refuse = |cause: &dyn std::fmt::Display| {
        let message = format!("the pin-source {path:?} cannot be used: {cause}");
        Failure::new(ErrorCode::PinRequired, message)
    };
    let text = fs::read_to_string(path).map_err(|e| refuse(&e))?;
    let text = Pin::from(text);
    let pin = text.expose().trim_end_matches(['\r', '\n']);
    match pin.is_empty() || pin.contains(['\r', '\n']) {
        true => Err(refuse(&"it must hold one line with the PIN").into()),
        false => Ok(pin.into()),
    }
}
