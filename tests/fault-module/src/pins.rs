//! What is known about PINs: login attempts and their results go in; whether a PIN is locked, the flags of
//! `CK_TOKEN_INFO`, and the user's PIN as the last login showed it come out.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki_sys::*;

use crate::rule_book::RuleSet;
use crate::rules::{Pin, Rule};
use crate::text::Value;

/// The retry counters, kept in the file `pins` of the folder (a locked token stays locked when the process
/// restarts), and the users' PINs, kept in memory.
#[derive(Debug)]
pub(crate) struct Pins {
    path: PathBuf,
    /// Held for each change of the file.
    changing: Mutex<()>,
    learnt: Mutex<HashMap<CK_SLOT_ID, Vec<u8>>>,
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

    /// Takes one try before the PIN is checked, as a card does, so that concurrent tries cannot exceed the limit.
    pub fn attempt(&self, rules: &RuleSet, label: &str, pin: Pin) -> Result<Attempt<'_>, CK_RV> {
        let mut locked = false;
        if let Some(tries) = tries(rules, label, pin) {
            self.change(label, pin, |wrong| {
                locked = wrong >= tries;
                if locked { wrong } else { wrong + 1 }
            });
        }
        if locked {
            return Err(CKR_PIN_LOCKED);
        }
        let label = label.to_owned();
        Ok(Attempt {
            pins: self,
            label,
            pin,
        })
    }

    /// Forgets the wrong tries.
    pub fn unlock(&self, label: &str, pin: Pin) {
        self.change(label, pin, |_| 0);
    }

    /// The retry flags of `CK_TOKEN_INFO` as the rules and the wrong tries make them.
    pub fn set_flags(&self, rules: &RuleSet, label: &str, flags: &mut CK_FLAGS) {
        for (pin, low, final_try, locked) in [
            (
                Pin::User,
                CKF_USER_PIN_COUNT_LOW,
                CKF_USER_PIN_FINAL_TRY,
                CKF_USER_PIN_LOCKED,
            ),
            (
                Pin::So,
                CKF_SO_PIN_COUNT_LOW,
                CKF_SO_PIN_FINAL_TRY,
                CKF_SO_PIN_LOCKED,
            ),
        ] {
            let Some(tries) = tries(rules, label, pin) else {
                continue;
            };
            let wrong = self.wrong(label, pin);
            *flags &= !(low | final_try | locked);
            if wrong > 0 {
                *flags |= low;
            }
            match tries.saturating_sub(wrong) {
                0 => *flags |= locked,
                1 => *flags |= final_try,
                _ => {}
            }
        }
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

    fn change(&self, label: &str, pin: Pin, new: impl FnOnce(u32) -> u32) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(label, pin);
        let mut lines = self.lines();
        let wrong = lines.get(&key).copied().unwrap_or_default();
        lines.insert(key, new(wrong));
        let text: String = lines
            .iter()
            .map(|(key, wrong)| format!("{key} {wrong}\n"))
            .collect();
        // A test whose folder is gone is over.
        let _ = fs::write(&self.path, text);
    }

    fn wrong(&self, label: &str, pin: Pin) -> u32 {
        self.lines()
            .get(&key(label, pin))
            .copied()
            .unwrap_or_default()
    }

    fn lines(&self) -> HashMap<String, u32> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let (key, wrong) = line.rsplit_once(' ')?;
                Some((key.to_owned(), wrong.parse().ok()?))
            })
            .collect()
    }
}

/// A try that was taken; [`Attempt::settle`] gives it back unless the PIN was wrong.
#[must_use]
pub(crate) struct Attempt<'a> {
    pins: &'a Pins,
    label: String,
    pin: Pin,
}

impl Attempt<'_> {
    pub fn settle(self, rules: &RuleSet, rv: CK_RV) {
        if tries(rules, &self.label, self.pin).is_none() {
            return;
        }
        match rv {
            CKR_OK => self.pins.unlock(&self.label, self.pin),
            CKR_PIN_INCORRECT => {}
            // The PIN was not checked.
            _ => self
                .pins
                .change(&self.label, self.pin, |wrong| wrong.saturating_sub(1)),
        }
    }
}

fn tries(rules: &RuleSet, label: &str, whose: Pin) -> Option<u32> {
    rules.iter().find_map(|rule| match rule {
        Rule::PinTries { pin, tries, token }
            if *pin == whose && token.as_deref().is_none_or(|token| token == label) =>
        {
            Some(*tries)
        }
        _ => None,
    })
}

fn key(label: &str, pin: Pin) -> String {
    let label = label.to_owned().to_text().unwrap_or_default();
    format!("{} {label}", pin.name())
}
