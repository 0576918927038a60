//! Why the fault module could not be loaded or steered.

use std::io;
use std::path::PathBuf;

use cryptoki_sys::CK_RV;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} is not set: start the process with the variables of Faults::envs()")]
    MissingVariable(&'static str),
    #[error("cannot load the wrapped module {path:?}: {reason}; is its package installed?")]
    Module { path: PathBuf, reason: String },
    #[error("C_GetFunctionList of the wrapped module {path:?} returned {rv:#x}")]
    FunctionList { path: PathBuf, rv: CK_RV },
    #[error("cannot use {path:?}: {source}")]
    File { path: PathBuf, source: io::Error },
}
