//! The rules in force: the file `rules`, read again when it has changed.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::random::Random;
use crate::rules::{Rule, When};

/// Looks at the file by a stat at each call.
#[derive(Debug)]
pub(crate) struct RulesFile {
    path: PathBuf,
    current: RwLock<Arc<RuleSet>>,
    /// Held while new rules are read and what they do once is done, so that no call passes in between.
    reading: Mutex<()>,
}

impl RulesFile {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            current: RwLock::default(),
            reading: Mutex::default(),
        }
    }

    /// The rules in force. New ones are first handed to `apply_once`.
    pub fn current(&self, apply_once: impl FnOnce(&RuleSet)) -> Arc<RuleSet> {
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
            // Nobody else would tell why a rule does nothing.
            let _ = writeln!(
                io::stderr(),
                "p11-fault-module: {:?} is not used: {reason}",
                self.path
            );
            Vec::new()
        });
        let new = Arc::new(RuleSet { stamp, rules });
        apply_once(&new);
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

    fn read(&self) -> io::Result<Vec<ActiveRule>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            // No file, no rules.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let rules: Vec<Rule> = serde_json::from_slice(&text)?;
        let active = rules.into_iter().map(|rule| ActiveRule {
            rule,
            calls: AtomicU64::new(0),
        });
        Ok(active.collect())
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

/// A rule with the number of calls that it was about.
#[derive(Debug)]
pub(crate) struct ActiveRule {
    pub rule: Rule,
    calls: AtomicU64,
}

impl ActiveRule {
    /// Counts a call that the rule is about, and says whether it acts in it.
    pub fn is_due(&self, when: &When) -> bool {
        let call = self.calls.fetch_add(1, Relaxed);
        match *when {
            When::Always => true,
            When::Next(calls) => call < calls.into(),
            When::Every(k) => k > 0 && (call + 1).is_multiple_of(k.into()),
            // Depends on nothing but the seed and the call, whatever thread makes it.
            When::Random { probability, seed } => {
                Random::after(seed, call).fraction() < probability
            }
        }
    }
}
