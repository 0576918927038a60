//! The module comes up and goes down: initialised when it is due, reloaded with nobody inside, shut down at the end.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags};
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki_sys::{CK_FLAGS, CKF_OS_LOCKING_OK};
use tracing::{info, warn};

use super::{Module, Phase, State, cause, needs, unavailable};
use crate::engine::lock::Locked;
use crate::engine::settings::Timeouts;
use crate::error::Error;

impl Module {
    /// `C_Finalize` and `C_Initialize` with nobody inside, unless that has happened since `seen`, a life in
    /// which something was found broken. `reset` is called when all sessions are gone.
    ///
    /// # Errors
    /// [`Error::ModuleUnavailable`] when it is too early for another one or the module did not come
    /// back, [`Error::Busy`] when a running call did not return.
    pub fn reload(
        &self,
        seen: &Arc<()>,
        why: &str,
        deadline: Instant,
        reset: &dyn Fn(),
    ) -> Result<(), Error> {
        let state = self.wait_for_reload(deadline)?;
        if !Arc::ptr_eq(&state.life, seen) {
            return Ok(());
        }
        if let Phase::Up { ours: false } = state.phase {
            return Err(Error::Busy(format!(
                "the module needs a reload ({why}), which is for the part of this program that has initialised \
                 it"
            )));
        }
        state.check_due(why)?;
        warn!("reloading the PKCS#11 module: {why}");
        self.initialize(state, Some(reset)).map(drop)
    }

    /// Asks for a reload by the next request: this one has found what only a reload may heal. A module that is down is initialised
    /// by it anyway.
    pub fn request_reload(&self, seen: &Arc<()>, why: &str) {
        let mut state = self.state.lock();
        if Arc::ptr_eq(&state.life, seen) && matches!(state.phase, Phase::Up { .. }) {
            state.needs_reload = Some(why.into());
        }
    }

    /// The life in which a reload was asked for, and why, where one is due.
    pub fn requested_reload(&self) -> Option<(Arc<()>, String)> {
        let state = self.state.lock();
        let why = state.needs_reload.clone()?;
        state.wait().is_zero().then(|| (state.life.clone(), why))
    }

    /// From now on a module that is up or down stays so: what ends soon needs no reload.
    pub fn stop_reloads(&self) {
        self.state.lock().stopping = true;
    }

    /// Lets nobody in any more, waits a moment for those inside, makes the last calls and `C_Finalize`. A module
    /// in which a call runs on is left as it is, and one that is not ours is not finalised.
    pub fn shut_down(&self, last_calls: impl FnOnce()) {
        let mut state = self.state.lock();
        state.closed = true;
        self.changed.notify_all();
        // What has not returned for so long will not return now.
        if !self.calls.any_older_than(self.timeouts.drain) {
            self.drain(&mut state);
        }
        let is_ours = matches!(state.phase, Phase::Up { ours: true });
        let is_idle = state.guards == 0 && !state.reloading;
        drop(state);
        if !is_idle {
            return warn!("a PKCS#11 call has not returned, so the module is left as it is");
        }
        last_calls();
        if is_ours {
            self.finalize();
        }
    }

    pub(super) fn wait_for_reload(&self, deadline: Instant) -> Result<Locked<'_, State>, Error> {
        let mut state = self.state.lock();
        while state.reloading && !state.closed {
            if !state.wait_until(&self.changed, deadline) {
                return Err(Error::Timeout("the module is being reloaded".into()));
            }
        }
        if state.closed {
            return Err(stopping());
        }
        Ok(state)
    }

    /// Initialises with nobody inside; with `reset`, after `C_Finalize`. Afterwards the state says how it
    /// went.
    pub(super) fn initialize<'m>(
        &'m self,
        mut state: Locked<'m, State>,
        reset: Option<&dyn Fn()>,
    ) -> Result<Locked<'m, State>, Error> {
        state.reloading = true;
        if !self.calls.any_older_than(self.timeouts.drain) {
            self.drain(&mut state);
        }
        if state.guards > 0 || state.closed {
            state.reloading = false;
            state.pause(&self.timeouts);
            self.changed.notify_all();
            return Err(Error::Busy(
                "the module needs a reload, which has to wait for a PKCS#11 call that does not return"
                    .into(),
            ));
        }
        let was_ours = matches!(state.phase, Phase::Up { ours: true });
        // These calls may hang like any other, so the lock is given back.
        drop(state);
        if was_ours {
            self.finalize();
        }
        if let Some(reset) = reset {
            reset();
        }
        let tokens = needs::softhsm_token_folders();
        let phase = self.c_initialize();
        let mut state = self.state.lock();
        state.life = Arc::default();
        state.needs_reload = None;
        state.initialized = Instant::now();
        let brings_tokens = state.tokens != tokens;
        state.tokens = tokens;
        // What brings tokens costs no pause, and so does the very first success: a reload may follow at once.
        if (reset.is_some() && !brings_tokens) || matches!(phase, Phase::Down(_)) {
            state.pause(&self.timeouts);
        }
        state.phase = phase;
        state.reloading = false;
        self.changed.notify_all();
        match &state.phase {
            Phase::Down(cause) => {
                let error = unavailable(cause, state.wait());
                warn!("{error}");
                Err(error)
            }
            Phase::Up { .. } => {
                self.initializations.fetch_add(1, Ordering::Relaxed);
                Ok(state)
            }
        }
    }

    /// `C_Initialize` with locks of the system, else without, else with NULL.
    fn c_initialize(&self) -> Phase {
        let text = self.state.lock().init_text.clone();
        let text = text.as_deref();
        let mut result = self.c_initialize_with(Some(CKF_OS_LOCKING_OK), text);
        let mut serial = false;
        for flags in [Some(0), None] {
            let refused = matches!(
                result,
                Err(Cryptoki::Pkcs11(
                    RvError::CantLock | RvError::ArgumentsBad,
                    _
                ))
            );
            if refused {
                result = self.c_initialize_with(flags, text);
                serial = true;
            }
        }
        let ours = match result {
            Ok(()) => true,
            // Another part of the program was first, and finalises it.
            Err(Cryptoki::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => false,
            Err(error) => {
                let why = self.needs().why_not_started();
                let why = why.map_or_else(String::new, |why| format!("; {why}"));
                return Phase::Down(cause(&error) + &why);
            }
        };
        self.is_serial.store(serial, Ordering::Relaxed);
        if serial {
            info!("the PKCS#11 module cannot lock, so it is called from one thread at a time");
        }
        if let Some(warning) = self.needs().warning() {
            warn!("{warning}");
        }
        Phase::Up { ours }
    }

    fn c_initialize_with(
        &self,
        flags: Option<CK_FLAGS>,
        text: Option<&CStr>,
    ) -> Result<(), Cryptoki> {
        let _running = self
            .calls
            .begin("C_Initialize", None, self.timeouts.request);
        match (&self.raw, flags) {
            (Some(raw), flags) => raw.initialize(flags, text),
            (None, Some(CKF_OS_LOCKING_OK)) => {
                let flags = CInitializeFlags::OS_LOCKING_OK;
                self.pkcs11.initialize(CInitializeArgs::new(flags))
            }
            (None, _) => {
                let flags = CInitializeFlags::empty();
                self.pkcs11.initialize(CInitializeArgs::new(flags))
            }
        }
    }

    pub(super) fn finalize(&self) {
        let _running = self.calls.begin("C_Finalize", None, self.timeouts.request);
        if let Err(error) = self.pkcs11.clone().finalize() {
            info!("finalising the PKCS#11 module: {}", cause(&error));
        }
    }

    /// Waits until nobody is inside, but not for ever.
    pub(super) fn drain(&self, state: &mut Locked<'_, State>) {
        let deadline = Instant::now() + self.timeouts.drain;
        while state.guards > 0 && state.wait_until(&self.changed, deadline) {}
    }
}

impl State {
    /// Whether the module may be initialised now.
    pub(super) fn check_due(&self, why: &str) -> Result<(), Error> {
        match self.wait() {
            _ if self.stopping => Err(stopping()),
            Duration::ZERO => Ok(()),
            wait => Err(unavailable(why, wait)),
        }
    }

    /// Makes the next try wait, longer each time until all has been quiet for a while.
    fn pause(&mut self, timeouts: &Timeouts) {
        let now = Instant::now();
        self.pause = match self.not_before + timeouts.quiet < now {
            true => timeouts.first_pause,
            false => (self.pause * 2).clamp(timeouts.first_pause, timeouts.longest_pause),
        };
        self.not_before = now + self.pause;
    }

    /// How long until the module may be initialised.
    pub(super) fn wait(&self) -> Duration {
        self.not_before.saturating_duration_since(Instant::now())
    }
}

fn stopping() -> Error {
    Error::Busy("the program is stopping".into())
}
