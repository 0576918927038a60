//! The loaded PKCS#11 module: its initialisation, and the guard that a reload waits for.
//!
//! `C_Initialize` starts an *epoch*. Sessions and handles belong to the epoch in which they were
//! made and are used and closed only in it, since a later one hands out the same numbers again.

mod calls;
mod raw;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error as Cryptoki, RvError};
use tracing::{info, warn};

use self::calls::Activity;
use self::raw::Raw;
use crate::engine::settings::Timeouts;
use crate::error::Error;
use crate::lock::lock;

/// One PKCS#11 module, loaded once and initialised as often as it needs.
pub(crate) struct Module {
    pkcs11: Pkcs11,
    raw: Option<Raw>,
    gate: Mutex<Gate>,
    changed: Condvar,
    /// Held during every call of a module that cannot be called from several threads.
    one_at_a_time: Mutex<()>,
    timeouts: Timeouts,
}

/// Who is inside, and whether anybody may enter.
struct Gate {
    state: State,
    epoch: u64,
    activity: Activity,
    reloading: bool,
    /// Nobody enters any more.
    closed: bool,
    pause: Duration,
    /// The earliest time of the next `C_Initialize`.
    not_before: Instant,
    /// The time of the last one.
    initialized: Instant,
}

impl Gate {
    /// How long until the module may be initialised.
    fn wait(&self) -> Duration {
        self.not_before.saturating_duration_since(Instant::now())
    }
}

#[derive(Clone)]
enum State {
    /// Not initialised, and why.
    Down(String),
    Up {
        /// Whether the module was initialised by us, so that we may finalise it.
        ours: bool,
        /// `CKR_CANT_LOCK`: it must be called from one thread at a time.
        serial: bool,
    },
}

/// When sessions and handles were made. They are good as long as the token still says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Era {
    /// Of the module.
    pub epoch: u64,
    /// Of the token, within the epoch.
    pub generation: u64,
}

/// The right to call the module, in one epoch, until it is dropped.
pub(crate) struct Call<'m> {
    module: &'m Module,
    epoch: u64,
    number: u64,
    /// Of the token that it is about.
    era: Cell<Option<Era>>,
    _alone: Option<MutexGuard<'m, ()>>,
}

impl Module {
    /// Loads the library; it is initialised by the first [`Module::enter`].
    ///
    /// # Errors
    /// [`Error::Load`] where the file is missing, is no library or no PKCS#11 module.
    pub fn load(path: &Path, timeouts: Timeouts) -> Result<Module, Error> {
        let unusable = |error: Cryptoki| Error::Load {
            path: PathBuf::from(path),
            cause: cause(&error),
        };
        let pkcs11 = Pkcs11::new(path).map_err(unusable)?;
        let raw = Raw::load(path).map_err(unusable)?;
        if raw.is_none() {
            info!(
                "the PKCS#11 module gives each caller an instance of its own, as p11-kit's do, so a \
                 signature takes three calls; load the token's own module for two"
            );
        }
        Ok(Module {
            pkcs11,
            raw,
            gate: Mutex::new(Gate {
                state: State::Down("it was not initialised yet".into()),
                epoch: 0,
                activity: Activity::default(),
                reloading: false,
                closed: false,
                pause: timeouts.first_pause,
                not_before: Instant::now(),
                initialized: Instant::now(),
            }),
            changed: Condvar::new(),
            one_at_a_time: Mutex::new(()),
            timeouts,
        })
    }

    /// Waits until no reload is under way, initialises the module if it is down and due, and enters
    /// for calls that should take no longer than `deadline` together.
    ///
    /// # Errors
    /// [`Error::ModuleUnavailable`] with the time of the next try.
    pub fn enter(&self, deadline: Duration) -> Result<Call<'_>, Error> {
        let mut gate = self.wait_for_reload();
        if gate.closed {
            return Err(Error::Busy("the server is stopping".into()));
        }
        if let State::Down(cause) = &gate.state {
            let wait = gate.wait();
            if !wait.is_zero() {
                return Err(unavailable(cause, wait));
            }
            gate = self.initialize(gate, false)?;
        }
        Ok(self.inside(gate, deadline))
    }

    /// `C_Finalize` and `C_Initialize` with nothing else in flight, unless that has happened since
    /// `seen`, an epoch in which something was found broken.
    ///
    /// # Errors
    /// [`Error::ModuleUnavailable`] when it is too early for another one or the module did not come
    /// back, [`Error::Busy`] when a running call did not return.
    pub fn reload(&self, seen: u64, why: &str) -> Result<(), Error> {
        let gate = self.wait_for_reload();
        if gate.epoch != seen {
            return Ok(());
        }
        let wait = gate.wait();
        if !wait.is_zero() {
            return Err(unavailable(why, wait));
        }
        warn!("reloading the PKCS#11 module: {why}");
        self.initialize(gate, true).map(drop)
    }

    /// How long it is waited, and for what.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// How long ago the module was last initialised.
    pub fn age(&self) -> Duration {
        lock(&self.gate).initialized.elapsed()
    }

    /// Why the module is down and when it is tried again, `None` while it is up.
    pub fn trouble(&self) -> Option<String> {
        let gate = lock(&self.gate);
        match &gate.state {
            State::Down(cause) => Some(unavailable(cause, gate.wait()).to_string()),
            State::Up { .. } => None,
        }
    }

    /// What is stuck: a token of which no call has returned for two deadlines.
    pub fn stuck(&self) -> Option<String> {
        let gate = lock(&self.gate);
        let about = gate.activity.stuck()?;
        Some(about.clone().unwrap_or_else(|| "the module itself".into()))
    }

    /// Makes the last calls and `C_Finalize`, if the module is ours and no call is stuck in it. Nothing
    /// can enter afterwards.
    pub fn shut_down(&self, last: impl FnOnce(&Call<'_>)) {
        let mut gate = lock(&self.gate);
        gate.closed = true;
        // What has not returned for so long will not return now.
        if !gate.activity.has_older_than(self.timeouts.drain) {
            gate = self.drain(gate);
        }
        if !gate.activity.is_quiet() {
            warn!("a PKCS#11 call has not returned, so the module is left as it is");
        } else if matches!(gate.state, State::Up { ours: true, .. }) {
            last(&self.inside(gate, self.timeouts.drain));
            self.finalize();
        }
    }

    /// A call by somebody whom the gate has let pass.
    fn inside<'m>(&'m self, mut gate: MutexGuard<'m, Gate>, deadline: Duration) -> Call<'m> {
        let serial = matches!(gate.state, State::Up { serial: true, .. });
        let number = gate.activity.begin(deadline);
        let epoch = gate.epoch;
        drop(gate);
        // The place in the gate is taken before the wait for the other caller, so the call is made
        // first: dropped, it gives the place back.
        let mut call = Call {
            module: self,
            epoch,
            number,
            era: Cell::new(None),
            _alone: None,
        };
        if serial {
            call._alone = Some(lock(&self.one_at_a_time));
        }
        call
    }

    /// (Re-)initialises with the gate closed. Afterwards the state says how it went.
    fn initialize<'m>(
        &'m self,
        mut gate: MutexGuard<'m, Gate>,
        reload: bool,
    ) -> Result<MutexGuard<'m, Gate>, Error> {
        if !gate.activity.has_older_than(self.timeouts.drain) {
            gate.reloading = true;
            gate = self.drain(gate);
        }
        if !gate.activity.is_quiet() {
            gate.reloading = false;
            self.changed.notify_all();
            return Err(Error::Busy(
                "the module needs a reload, which has to wait for a PKCS#11 call that does not return"
                    .into(),
            ));
        }
        if gate.not_before + self.timeouts.quiet < Instant::now() {
            gate.pause = self.timeouts.first_pause;
        }
        let before = gate.state.clone();
        // These calls may be stuck like any other.
        let number = gate.activity.begin(self.timeouts.request);
        drop(gate);
        if reload && matches!(before, State::Up { ours: true, .. }) {
            self.finalize();
        }
        let state = self.c_initialize();
        let mut gate = lock(&self.gate);
        gate.activity.end(number);
        gate.epoch += 1;
        gate.initialized = Instant::now();
        // The very first success costs no pause: a reload may follow it at once.
        if reload || matches!(state, State::Down(_)) {
            gate.not_before = Instant::now() + gate.pause;
            gate.pause = (gate.pause * 2).min(self.timeouts.longest_pause);
        }
        gate.state = state;
        gate.reloading = false;
        self.changed.notify_all();
        match &gate.state {
            State::Down(cause) => {
                let error = unavailable(cause, gate.wait());
                warn!("{error}");
                Err(error)
            }
            State::Up { .. } => Ok(gate),
        }
    }

    fn c_initialize(&self) -> State {
        let flags = |flags| self.pkcs11.initialize(CInitializeArgs::new(flags));
        let (result, serial) = match flags(CInitializeFlags::OS_LOCKING_OK) {
            Err(Cryptoki::Pkcs11(RvError::CantLock, Function::Initialize)) => {
                (flags(CInitializeFlags::empty()), true)
            }
            other => (other, false),
        };
        let ours = match result {
            Ok(()) => true,
            // In-process use: another part of the program was first, and finalises it.
            Err(Cryptoki::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => false,
            Err(error) => return State::Down(cause(&error)),
        };
        if serial {
            info!("the PKCS#11 module cannot lock, so it is called from one thread at a time");
        }
        State::Up { ours, serial }
    }

    fn finalize(&self) {
        if let Err(error) = self.pkcs11.clone().finalize() {
            info!("finalising the PKCS#11 module: {}", cause(&error));
        }
    }

    fn wait_for_reload(&self) -> MutexGuard<'_, Gate> {
        self.changed
            .wait_while(lock(&self.gate), |gate| gate.reloading)
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn drain<'m>(&'m self, gate: MutexGuard<'m, Gate>) -> MutexGuard<'m, Gate> {
        self.changed
            .wait_timeout_while(gate, self.timeouts.drain, |gate| !gate.activity.is_quiet())
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .0
    }
}

impl Call<'_> {
    /// cryptoki's view of the module.
    pub fn pkcs11(&self) -> &Pkcs11 {
        &self.module.pkcs11
    }

    /// How long it is waited, and for what.
    pub fn timeouts(&self) -> &Timeouts {
        &self.module.timeouts
    }

    /// The two functions that sign, where the module gives them to us.
    pub fn raw(&self) -> Option<&Raw> {
        self.module.raw.as_ref()
    }

    /// The epoch that lasts as long as this call.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// From now on the call is about this token, in this era of it.
    pub fn set_token(&self, token: &str, era: Era) {
        self.era.set(Some(era));
        lock(&self.module.gate)
            .activity
            .set_token(self.number, token);
    }

    /// The token that the call was last about, and its era then.
    pub fn token(&self) -> Option<(String, Era)> {
        let token = lock(&self.module.gate).activity.token(self.number)?;
        Some((token, self.era.get()?))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut gate = lock(&self.module.gate);
        gate.activity.end(self.number);
        if (gate.reloading || gate.closed) && gate.activity.is_quiet() {
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
        Cryptoki::Pkcs11(rv, function) => format!(
            "{} returned {}",
            crate::error::function_name(*function),
            crate::error::ckr_name(*rv)
        ),
        Cryptoki::LibraryLoading(error) => error.to_string(),
        Cryptoki::MissingSymbol(symbol) => {
            format!("it has no symbol {symbol}, so it is no PKCS#11 module")
        }
        other => other.to_string(),
    }
}
