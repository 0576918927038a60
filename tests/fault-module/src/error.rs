//! What can go wrong before a rule can strike: a folder, a wrapped module or a line of rules that is unusable.

use std::io;
use std::path::PathBuf;

use cryptoki_sys::CK_RV;

/// Why the fault module could not be loaded or steered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process that loads the module lacks an environment variable.
    #[error("{0} is not set: start the process with the variables of Faults::envs()")]
    MissingVariable(&'static str),
    /// The wrapped module does not load.
    #[error("cannot load the wrapped module {path:?}: {reason}; is its package installed?")]
    Module {
        /// The path of the wrapped module.
        path: PathBuf,
        /// What the dynamic loader said.
        reason: String,
    },
    /// The wrapped module loads but gives no function list.
    #[error("C_GetFunctionList of the wrapped module {path:?} returned {rv:#x}")]
    FunctionList {
        /// The path of the wrapped module.
        path: PathBuf,
        /// What it returned.
        rv: CK_RV,
    },
    /// A file of the folder cannot be used.
    #[error("cannot use {path:?}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of rules begins with a word that names no rule.
    #[error("no rule is called {0:?}")]
    UnknownRule(String),
    /// A rule lacks a field, or the field's text has no meaning.
    #[error("the rule {rule:?} needs a valid field {field:?}")]
    BadField {
        /// The rule's word.
        rule: String,
        /// The field's name.
        field: &'static str,
    },
    /// A rule has a field that it does not know.
    #[error("the rule {rule:?} has no field {field:?}")]
    UnknownField {
        /// The rule's word.
        rule: String,
        /// The field as it stands in the line.
        field: String,
    },
}
