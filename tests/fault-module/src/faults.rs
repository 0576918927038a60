//! The test's side: sets the rules, and reads the counts.

#![allow(
    clippy::panic,
    reason = "a test harness: what it cannot do ends the test with the reason"
)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::TempDir;

use crate::counters::{Counters, Counts};
use crate::function::Function;
use crate::pins::Pins;
use crate::rules::Rule;
use crate::state::{FOLDER_VARIABLE, MODULE_VARIABLE, rules_file};

/// The file that cargo makes of this package's cdylib.
const FILE: &str = "libp11_fault_module.so";

/// A folder through which a test steers every process that has [`Faults::envs`] in its environment.
#[derive(Debug)]
pub struct Faults {
    real_module: PathBuf,
    folder: PathBuf,
    counters: Counters,
    /// Removes the folder when the test that made it ends.
    _temporary: Option<TempDir>,
}

impl Faults {
    /// Without rules and with zero counts. `real_module` is the module to wrap.
    pub fn new(real_module: impl Into<PathBuf>) -> Self {
        let temporary = or_panic(
            TempDir::with_prefix("p11-fault-"),
            "cannot make a folder for the fault module",
        );
        let mut faults = Self::attach(temporary.path(), real_module);
        faults._temporary = Some(temporary);
        faults
    }

    /// Steers by the folder of another `Faults`, from another process.
    pub fn attach(folder: impl Into<PathBuf>, real_module: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self {
            counters: or_panic(Counters::open(&folder), "cannot count"),
            real_module: real_module.into(),
            folder,
            _temporary: None,
        }
    }

    /// What the process that loads the module needs in its environment.
    pub fn envs(&self) -> [(&'static str, OsString); 2] {
        [
            (MODULE_VARIABLE, self.real_module.clone().into()),
            (FOLDER_VARIABLE, self.folder.clone().into()),
        ]
    }

    /// The module that cargo built, to be loaded in place of the real one.
    pub fn module_path() -> PathBuf {
        let test = or_panic(std::env::current_exe(), "cannot find the test's own file");
        // A test lies in target/debug/deps, where cargo puts the cdylibs of dependencies, too; an example or a
        // binary lies beside or above that folder.
        let mut places = test
            .ancestors()
            .skip(1)
            .take(2)
            .flat_map(|folder| [folder.join(FILE), folder.join("deps").join(FILE)]);
        places.find(|place| place.is_file()).unwrap_or_else(|| {
            panic!("{FILE} is not near {test:?}: the package of the test must depend on p11-fault-module")
        })
    }

    /// Puts these rules in place of those before, from the next call on. What counts or happens once begins anew.
    pub fn set(&self, rules: impl IntoIterator<Item = Rule>) {
        let rules: Vec<_> = rules.into_iter().collect();
        or_panic(
            serde_json::to_vec(&rules)
                .map_err(io::Error::from)
                .and_then(|text| replace(&rules_file(&self.folder), &text)),
            "cannot set the rules",
        );
    }

    /// Takes all rules away. Locked PINs stay locked, and renumbered objects keep their numbers.
    pub fn clear(&self) {
        self.set([]);
    }

    /// How often the function was called so far.
    pub fn count(&self, function: Function) -> u64 {
        self.counts().of(function)
    }

    /// How many calls there were so far.
    pub fn total(&self) -> u64 {
        self.counts().total()
    }

    /// All counts so far; see [`Counts::since`] for those of a part of the test.
    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }

    /// Begins [`Counts::max_concurrent`] anew.
    pub fn forget_max_concurrent(&self) {
        self.counters.forget_max_concurrent();
    }

    /// Unlocks all PINs, as an administrator does.
    pub fn unlock_pins(&self) {
        match fs::remove_file(Pins::file(&self.folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                panic!("cannot unlock the PINs: {error}")
            }
            _ => {}
        }
    }
}

/// Replaces a file at once. Its time has the full resolution of the clock: the kernel's own stamps are the same for
/// some milliseconds, and the module must see each change.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.set_modified(SystemTime::now())?;
    fs::rename(new, path)
}

fn or_panic<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}
