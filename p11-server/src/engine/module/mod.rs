//! The loaded PKCS#11 module: what is known of it, and the guard that a reload waits for.

mod attributes;
mod calls;
mod library_info;
mod list;
mod needs;
mod obstacle;
mod park;
mod pkcs11;
mod raw;
mod reload;
mod token_flags;

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::error::Error as Cryptoki;
use p11_proto::message::ModuleStatus;
use parking_lot::Condvar;
use tracing::{info, warn};

use self::calls::Calls;
use self::raw::{Entry, Raw};
use super::lock::{Mutex, Rank};
use super::settings::Timeouts;
use crate::error::{Error, ckr_name, function_name};

pub(crate) use self::attributes::Attributes;
pub use self::calls::HungCall;
pub(crate) use self::calls::Place;
pub(crate) use self::library_info::LibraryInfo;
pub(crate) use self::needs::Needs;
pub(crate) use self::pkcs11::Session;
#[cfg(feature = "daemon")]
pub(crate) use self::raw::unblock_signals_in_forks;
pub(crate) use self::token_flags::TokenFlags;

/// One PKCS#11 module, loaded once and initialised as often as it needs.
pub(crate) struct Module {
    path: PathBuf,
    entry: Entry,
    pkcs11: Pkcs11,
    raw: Option<Raw>,
    calls: Calls,
    /// Held during every call of a module that cannot be called from several threads.
    serial: Mutex<()>,
    is_serial: AtomicBool,
    /// What it says of itself, once it was asked.
    info: OnceLock<LibraryInfo>,
    /// How often it was initialised.
    initializations: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    timeouts: Timeouts,
}

/// Who is inside, and whether anybody may enter.
struct State {
    phase: Phase,
    /// Of the module, between two reloads: old is told by its address.
    life: Arc<()>,
    guards: usize,
    /// `C_Initialize` or `C_Finalize` is under way: nobody enters.
    reloading: bool,
    /// No reload begins any more.
    stopping: bool,
    /// Nobody enters any more.
    closed: bool,
    /// What `C_Initialize` is told beside its flags, for modules that want it.
    init_text: Option<CString>,
    /// What calls for a reload at the next request.
    needs_reload: Option<String>,
    pause: Duration,
    /// The earliest time of the next `C_Initialize`.
    not_before: Instant,
    /// The time of the last one.
    initialized: Instant,
    /// SoftHSM's tokens of then, whatever the module is: that may be known only later.
    tokens: Option<BTreeSet<OsString>>,
}

#[derive(Clone)]
enum Phase {
    /// Not initialised, and why.
    Down(String),
    Up {
        /// Whether the module was initialised by us, so that we may finalise it.
        ours: bool,
    },
}

/// The right to call the module until it is dropped: no reload begins meanwhile.
pub(crate) struct Guard<'m> {
    module: &'m Arc<Module>,
    /// Until when a call waits for others, in a module that cannot lock.
    deadline: Instant,
}

impl Module {
    /// Loads the library; it is initialised by the first [`Module::guard`].
    ///
    /// # Errors
    /// [`Error::Load`] where the file is missing, is no library or no PKCS#11 module.
    pub fn load(path: &Path, timeouts: Timeouts) -> Result<Module, Error> {
        let unusable = |error: Cryptoki| Error::Load {
            path: PathBuf::from(path),
            cause: cause(&error),
        };
        // First, since cryptoki believes that the list of functions is there.
        let (entry, raw) = Raw::load(path).map_err(unusable)?;
        let pkcs11 = Pkcs11::new(path).map_err(unusable)?;
        if raw.is_none() {
            info!(
                "the PKCS#11 module gives each caller an instance of its own, as p11-kit's do, so a \
                 signature takes three calls; load the token's own module for two"
            );
        }
        let now = Instant::now();
        let state = State {
            phase: Phase::Down("it was not initialised yet".into()),
            life: Arc::default(),
            guards: 0,
            reloading: false,
            stopping: false,
            closed: false,
            init_text: None,
            needs_reload: None,
            pause: Duration::ZERO,
            not_before: now,
            initialized: now,
            tokens: None,
        };
        Ok(Module {
            path: path.into(),
            entry,
            pkcs11,
            raw,
            calls: Calls::new(),
            serial: Mutex::new(Rank::Serial, ()),
            is_serial: AtomicBool::new(false),
            info: OnceLock::new(),
            initializations: AtomicU64::new(0),
            state: Mutex::new(Rank::Module, state),
            changed: Condvar::new(),
            timeouts,
        })
    }

    /// Whether both have loaded the same library, by whatever path.
    pub fn is_same(&self, other: &Module) -> bool {
        self.entry == other.entry
    }

    /// What the next `C_Initialize` is told beside its flags.
    pub fn set_init_text(&self, text: Option<CString>) {
        if text.is_some() && self.raw.is_none() {
            warn!(
                "p11-kit's own modules are told nothing at their initialisation; set x-init-reserved in p11-kit's file of the module"
            );
        }
        self.state.lock().init_text = text;
    }

    /// Waits until no reload is under way, at most until `deadline`, and initialises the module if it is
    /// down and due.
    ///
    /// # Errors
    /// [`Error::ModuleUnavailable`] with the time of the next try, [`Error::Timeout`].
    pub fn guard(self: &Arc<Self>, deadline: Instant) -> Result<Guard<'_>, Error> {
        let mut state = self.wait_for_reload(deadline)?;
        if let Phase::Down(cause) = &state.phase {
            state.check_due(cause)?;
            state = self.initialize(state, None)?;
        }
        state.guards += 1;
        let module = self;
        Ok(Guard { module, deadline })
    }

    /// The life of the module that lasts since the last reload.
    pub fn life(&self) -> Arc<()> {
        self.state.lock().life.clone()
    }

    /// How long it is waited, and for what.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// How long ago the module was last initialised.
    pub fn age(&self) -> Duration {
        self.state.lock().initialized.elapsed()
    }

    /// Whether tokens were made or deleted that the module will show by a reload alone.
    pub fn hides_new_tokens(&self) -> bool {
        if !matches!(self.needs(), Needs::SoftHsm) || !self.is_ours() {
            return false;
        }
        let tokens = needs::softhsm_token_folders();
        self.state.lock().tokens != tokens
    }

    /// One token was made through the module. Of others that came meanwhile it does not know.
    pub fn set_token_made(&self) {
        let now = needs::softhsm_token_folders();
        let mut state = self.state.lock();
        if let (Some(known), Some(now)) = (&mut state.tokens, now)
            && now.len() == known.len() + 1
            && now.is_superset(known)
        {
            *known = now;
        }
    }

    /// How long until it may be initialised again.
    pub fn wait(&self) -> Duration {
        self.state.lock().wait()
    }

    /// Whether the module was initialised by us, so that its login and sessions are ours alone.
    pub fn is_ours(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Up { ours: true })
    }

    /// Why the module is down and when it is tried again, `None` while it is up.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        match &state.phase {
            _ if state.reloading => Some("the PKCS#11 module is being initialised".into()),
            Phase::Down(cause) => Some(unavailable(cause, state.wait()).to_string()),
            Phase::Up { .. } => None,
        }
    }

    /// Who made the module, by its own word, once it was asked.
    pub fn manufacturer(&self) -> Option<&str> {
        self.info.get().map(|info| info.manufacturer.as_str())
    }

    /// As `Status` tells of it.
    pub fn message(&self) -> ModuleStatus {
        let told = ModuleStatus::new(self.path.to_string_lossy());
        let Some(info) = self.info.get() else {
            return told;
        };
        let (major, minor) = info.version;
        told.description(info.description.clone())
            .manufacturer(info.manufacturer.clone())
            .version(format!("{major}.{minor}"))
    }

    /// How often it was initialised again.
    pub fn reloads(&self) -> u64 {
        self.initializations
            .load(Ordering::Relaxed)
            .saturating_sub(1)
    }

    /// What it needs beside it.
    pub fn needs(&self) -> Needs {
        Needs::of(&self.path, self.manufacturer())
    }

    /// A call that has not returned within its limit.
    pub fn hung(&self) -> Option<HungCall> {
        self.calls.hung()
    }

    /// All of them.
    pub fn all_hung(&self) -> Vec<HungCall> {
        self.calls.all_hung()
    }

    /// The function that has run on a slot for longer than `time`.
    pub fn busy_slot(&self, slot: u64, time: Duration) -> Option<&'static str> {
        self.calls.older_on_slot(slot, time)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut state = self.module.state.lock();
        state.guards -= 1;
        if (state.reloading || state.closed) && state.guards == 0 {
            self.module.changed.notify_all();
        }
    }
}

fn unavailable(cause: &str, retry_in: Duration) -> Error {
    Error::ModuleUnavailable {
        cause: cause.into(),
        retry_in,
    }
}

/// cryptoki's text, with the names of the standard where it is the module's own return value.
fn cause(error: &Cryptoki) -> String {
    match error {
        Cryptoki::Pkcs11(rv, function) => {
            format!("{} returned {}", function_name(*function), ckr_name(*rv))
        }
        Cryptoki::LibraryLoading(error) => error.to_string(),
        Cryptoki::MissingSymbol(symbol) => {
            format!("it has no symbol {symbol}, so it is no PKCS#11 module")
        }
        Cryptoki::NullFunctionPointer => "it gives no list of functions".into(),
        other => other.to_string(),
    }
}
