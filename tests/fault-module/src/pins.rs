//! The retry counters of PINs, and each user's PIN as the last login showed it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::rules::Pin;

/// The wrong tries are kept in the file `pins` of the folder (a locked token stays locked when the process restarts),
/// the users' PINs in memory.
#[derive(Debug)]
pub(crate) struct Pins {
    path: PathBuf,
    /// Held for each change of the file.
    changing: Mutex<()>,
    learnt: Mutex<HashMap<CK_SLOT_ID, Vec<u8>>>,
}

/// The wrong tries on one token.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Wrong {
    user: u32,
    so: u32,
}

impl Wrong {
    fn of(&mut self, pin: Pin) -> &mut u32 {
        match pin {
            Pin::User => &mut self.user,
            Pin::So => &mut self.so,
        }
    }
}

impl Pins {
    /// The file of wrong tries in a folder.
    pub fn file(folder: &Path) -> PathBuf {
        folder.join("pins")
    }

    pub fn new(folder: &Path) -> Self {
        Self {
            path: Self::file(folder),
            changing: Mutex::default(),
            learnt: Mutex::default(),
        }
    }

    /// Takes one try before the PIN is checked, as a card does, so that concurrent tries cannot exceed the limit, and
    /// gives it back unless the PIN was wrong.
    pub fn attempt(
        &self,
        label: &str,
        pin: Pin,
        tries: u32,
        check: impl FnOnce() -> CK_RV,
    ) -> CK_RV {
        let mut locked = false;
        self.change(label, pin, |wrong| {
            locked = *wrong >= tries;
            *wrong += u32::from(!locked);
        });
        if locked {
            return CKR_PIN_LOCKED;
        }
        let rv = check();
        match rv {
            CKR_OK => self.unlock(label, pin),
            CKR_PIN_INCORRECT => {}
            // The PIN was not checked.
            _ => self.change(label, pin, |wrong| *wrong = wrong.saturating_sub(1)),
        }
        rv
    }

    /// Forgets the wrong tries.
    pub fn unlock(&self, label: &str, pin: Pin) {
        self.change(label, pin, |wrong| *wrong = 0);
    }

    /// The flags of `CK_TOKEN_INFO` with those of the retry counter as the wrong tries make them.
    pub fn flags(&self, label: &str, pin: Pin, tries: u32, flags: CK_FLAGS) -> CK_FLAGS {
        let (low, final_try, locked) = match pin {
            Pin::User => (
                CKF_USER_PIN_COUNT_LOW,
                CKF_USER_PIN_FINAL_TRY,
                CKF_USER_PIN_LOCKED,
            ),
            Pin::So => (
                CKF_SO_PIN_COUNT_LOW,
                CKF_SO_PIN_FINAL_TRY,
                CKF_SO_PIN_LOCKED,
            ),
        };
        let wrong = *self.read().entry(label.to_owned()).or_default().of(pin);
        let left = match tries.saturating_sub(wrong) {
            0 => locked,
            1 => final_try,
            _ => 0,
        };
        let used = if wrong > 0 { low } else { 0 };
        (flags & !(low | final_try | locked)) | left | used
    }

    pub fn learn(&self, slot: CK_SLOT_ID, pin: &[u8]) {
        self.learnt().insert(slot, pin.to_vec());
    }

    pub fn is_learnt(&self, slot: CK_SLOT_ID, pin: &[u8]) -> bool {
        self.learnt().get(&slot).is_some_and(|learnt| learnt == pin)
    }

    pub fn forget_learnt(&self) {
        self.learnt().clear();
    }

    fn learnt(&self) -> std::sync::MutexGuard<'_, HashMap<CK_SLOT_ID, Vec<u8>>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, label: &str, pin: Pin, change: impl FnOnce(&mut u32)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tokens = self.read();
        change(tokens.entry(label.to_owned()).or_default().of(pin));
        let new = self.path.with_extension("new");
        let text = serde_json::to_vec(&tokens).unwrap_or_default();
        // A test whose folder is gone is over.
        let _ = fs::write(&new, text).and_then(|()| fs::rename(new, &self.path));
    }

    /// By label of the token.
    fn read(&self) -> BTreeMap<String, Wrong> {
        let text = fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}
