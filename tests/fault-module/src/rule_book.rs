//! The rules in force: the file `rules` goes in when it changes, the current [`RuleSet`] comes out at each call.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::rules::{Rule, When};

/// Watches the file `rules` by a stat at each call.
#[derive(Debug)]
pub(crate) struct RuleBook {
    path: PathBuf,
    current: RwLock<Arc<RuleSet>>,
    /// Held while new rules are read and take effect, so that no call passes in between.
    reading: Mutex<()>,
}

impl RuleBook {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            current: RwLock::default(),
            reading: Mutex::default(),
        }
    }

    /// The rules in force. New ones are first handed to `take_effect`, once.
    pub fn current(&self, take_effect: impl FnOnce(&RuleSet)) -> Arc<RuleSet> {
        let known = self.known();
        if known.stamp == self.stamp() {
            return known;
        }
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // The stamp is taken before the text: a change in between is then seen at the next call.
        let stamp = self.stamp();
        let known = self.known();
        if known.stamp == stamp {
            return known;
        }
        let rules = self.read().unwrap_or_else(|reason| {
            // Nobody else would tell why a rule does not strike.
            let _ = writeln!(
                io::stderr(),
                "p11-fault-module: {:?} is not used: {reason}",
                self.path
            );
            Vec::new()
        });
        let new = Arc::new(RuleSet { stamp, rules });
        take_effect(&new);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        new
    }

    fn known(&self) -> Arc<RuleSet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn stamp(&self) -> Option<Stamp> {
        let file = fs::metadata(&self.path).ok()?;
        Some(Stamp {
            inode: file.ino(),
            modified: (file.mtime(), file.mtime_nsec()),
            size: file.size(),
        })
    }

    fn read(&self) -> Result<Vec<ActiveRule>, String> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            // No file, no rules.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.to_string()),
        };
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let rule = line.parse().map_err(|error| format!("{line:?}: {error}"))?;
                Ok(ActiveRule {
                    rule,
                    met: AtomicU64::new(0),
                })
            })
            .collect()
    }
}

/// Tells one version of the file from another.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

/// The rules of one version of the file.
#[derive(Debug, Default)]
pub(crate) struct RuleSet {
    stamp: Option<Stamp>,
    rules: Vec<ActiveRule>,
}

impl RuleSet {
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Rule> {
        self.rules.iter().map(|active| &active.rule)
    }

    pub fn active(&self) -> &[ActiveRule] {
        &self.rules
    }
}

/// A rule with the number of calls that it has met.
#[derive(Debug)]
pub(crate) struct ActiveRule {
    pub rule: Rule,
    met: AtomicU64,
}

impl ActiveRule {
    /// Counts a call that the rule is about, and says whether it strikes there.
    pub fn is_due(&self, when: &When) -> bool {
        let call = self.met.fetch_add(1, Relaxed);
        match *when {
            When::Always => true,
            When::Next(calls) => call < calls.into(),
            When::Every(k) => k > 0 && (call + 1).is_multiple_of(k.into()),
            When::Random { probability, seed } => chance(seed, call) < probability,
        }
    }
}

/// A number from 0 to 1 that depends on nothing but the seed and the call (SplitMix64), whatever thread makes it.
fn chance(seed: u64, call: u64) -> f64 {
    let mut z = seed.wrapping_add((call + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}
