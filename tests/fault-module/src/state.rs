//! What one process keeps, made from its environment at the first `C_GetFunctionList`.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use cryptoki_sys::{CK_OBJECT_HANDLE, CK_SLOT_ID};

use crate::active_rules::{RuleSet, RulesFile};
use crate::counters::Counters;
use crate::error::Error;
use crate::pins::Pins;
use crate::real;
use crate::rules::{Rule, TokenFault};
use crate::sessions::Sessions;

/// The variable that names the wrapped module.
pub(crate) const MODULE_VARIABLE: &str = "P11_FAULT_MODULE";
/// The variable that names the folder of counts, rules and wrong PINs.
pub(crate) const FOLDER_VARIABLE: &str = "P11_FAULT_DIR";

/// Everything that the module remembers, one per process.
#[derive(Debug)]
pub(crate) struct State {
    pub counters: Counters,
    pub sessions: Sessions,
    pub pins: Pins,
    rules_file: RulesFile,
    /// Visible object handle = real handle + this.
    object_offset: AtomicU64,
    /// Read while a call is inside the real module, written while its sessions are closed behind the
    /// application's back: SoftHSM frees sessions under calls that still use them.
    inside_real: RwLock<()>,
}

/// How far renumbered objects move; more than any token in a test has objects.
const OBJECT_STEP: u64 = 1_000_000;

impl State {
    /// The state, once [`State::load`] has made it.
    pub fn get() -> Option<&'static Self> {
        STATE.get()
    }

    /// The state, made from the environment the first time.
    pub fn load() -> Result<&'static Self, Error> {
        if let Some(state) = STATE.get() {
            return Ok(state);
        }
        let folder = variable(FOLDER_VARIABLE)?;
        real::load(&variable(MODULE_VARIABLE)?)?;
        let state = Self::new(&folder)?;
        Ok(STATE.get_or_init(|| state))
    }

    fn new(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            counters: Counters::open(folder)?,
            sessions: Sessions::default(),
            pins: Pins::new(folder),
            rules_file: RulesFile::new(rules_file(folder)),
            object_offset: AtomicU64::new(0),
            inside_real: RwLock::default(),
        })
    }

    /// The rules in force; what new ones do once is done before this returns.
    pub fn rules(&self) -> Arc<RuleSet> {
        self.rules_file.current(|new| self.apply_once(new))
    }

    pub fn object_offset(&self) -> CK_OBJECT_HANDLE {
        self.object_offset.load(Relaxed) as CK_OBJECT_HANDLE
    }

    /// Held while a call is inside the real module; many hold it at once.
    pub fn enter_real(&self) -> std::sync::RwLockReadGuard<'_, ()> {
        self.inside_real
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn apply_once(&self, new: &RuleSet) {
        for rule in new.iter() {
            match rule {
                Rule::Token { token, fault } => self.apply_to_token(token, fault),
                Rule::RenumberObjects => {
                    self.object_offset.fetch_add(OBJECT_STEP, Relaxed);
                }
                _ => {}
            }
        }
    }

    fn apply_to_token(&self, token: &Option<String>, fault: &TokenFault) {
        match fault {
            TokenFault::Hidden => self.on_slots(token, |slot| {
                self.sessions.removed_all(slot);
                real::close_all_sessions(slot);
            }),
            TokenFault::SessionsClosed => self.on_slots(token, |slot| {
                self.sessions.closed_all(slot);
                real::close_all_sessions(slot);
            }),
            TokenFault::LoggedOut => self.on_slots(token, |slot| {
                if let Some(session) = self.sessions.any_on(slot) {
                    real::log_out(session);
                }
            }),
            _ => {}
        }
    }

    fn on_slots(&self, token: &Option<String>, effect: impl Fn(CK_SLOT_ID)) {
        let _alone = self
            .inside_real
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let slots = real::slots(true).into_iter();
        slots
            .filter(|slot| token.is_none() || real::label(*slot) == *token)
            .for_each(effect);
    }
}

/// The file of rules in a folder.
pub(crate) fn rules_file(folder: &Path) -> PathBuf {
    folder.join("rules")
}

static STATE: OnceLock<State> = OnceLock::new();

fn variable(name: &'static str) -> Result<PathBuf, Error> {
    env::var_os(name)
        .map(PathBuf::from)
        .ok_or(Error::MissingVariable(name))
}
