//! A job that fails on the token enters; it leaves done by a second try, or with what is in its way.
//!
//! What is done before the second try rests on the CKR code alone: the key is found again, the
//! token's sessions and login are given up and the slots listed, or the module is reloaded.

use std::sync::Arc;
use std::time::Duration;

use cryptoki::context::Function;
use cryptoki::error::RvError;
use tracing::info;

use super::Engine;
use super::keys::Key;
use super::module::Call;
use crate::error::Error;

/// A token or key that is not there may have come into being since the module was initialised, and
/// some modules do not look again by themselves. So often may a miss cause a reload.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How often a job begins anew where other requests change its token.
const MOST_CHANGES: usize = 16;

/// The key that a job works with, noted so that its token is known when the job fails.
pub type Culprit = Option<Arc<Key>>;

impl Engine {
    /// Does a job, with one retry where the trouble is of a kind that a fresh start may heal.
    ///
    /// # Errors
    /// Those of the second try, or of the first where a second would fail as well.
    pub(super) fn heal<T>(
        &self,
        deadline: Duration,
        job: impl Fn(&Call<'_>, &mut Culprit) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (epoch, error) = match self.attempt(deadline, &job) {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        match Remedy::of(&error) {
            Remedy::None | Remedy::RenewOnly => return Err(error),
            Remedy::FindAgain | Remedy::Renew => info!("trying once more after this: {error}"),
            Remedy::Reload => self.module.reload(epoch, &error.to_string())?,
            Remedy::LookAgain => self.look_again(epoch, error)?,
        }
        self.once(deadline, job)
    }

    /// Does a job that must not be repeated. What is broken is mended for the next request.
    ///
    /// # Errors
    /// Those of the job.
    pub(super) fn once<T>(
        &self,
        deadline: Duration,
        job: impl Fn(&Call<'_>, &mut Culprit) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.attempt(deadline, &job).map_err(|(epoch, error)| {
            // Sessions and handles may not have been the trouble, so the module may be.
            if let Remedy::FindAgain | Remedy::Renew | Remedy::Reload = Remedy::of(&error)
                && let Err(later) = self.module.reload(epoch, &error.to_string())
            {
                info!("{later}");
            }
            error
        })
    }

    /// One try. When it fails, what failed is not used again; the epoch says in which life of the
    /// module that was.
    fn attempt<T>(
        &self,
        deadline: Duration,
        job: impl Fn(&Call<'_>, &mut Culprit) -> Result<T, Error>,
    ) -> Result<T, (u64, Error)> {
        let call = self.module.enter(deadline).map_err(|error| (0, error))?;
        let mut culprit = None;
        let mut outcome = job(&call, &mut culprit);
        for _ in 0..MOST_CHANGES {
            if let Err(Error::Changed { .. }) = outcome {
                outcome = job(&call, &mut culprit);
            }
        }
        outcome.map_err(|error| {
            match (Remedy::of(&error), culprit) {
                (Remedy::FindAgain, Some(key)) => self.memory.forget(&key),
                (Remedy::Renew | Remedy::RenewOnly, Some(key)) => {
                    key.token.give_up(&call, key.era);
                }
                // It failed before there was a key, on the token that it was looking at.
                (Remedy::Renew | Remedy::RenewOnly, None) => {
                    if let Some((name, era)) = call.whereabouts() {
                        for token in self.tokens.known().iter().filter(|t| t.name() == name) {
                            token.give_up(&call, era);
                        }
                    }
                }
                _ => {}
            }
            (call.epoch(), error)
        })
    }

    /// Nothing was found: reload the module, if it has not been initialised just now.
    fn look_again(&self, epoch: u64, missing: Error) -> Result<(), Error> {
        let wait = LOOK_AGAIN.saturating_sub(self.module.age());
        if !wait.is_zero() {
            return Err(missing.with_hint(&format!(
                "; what was added by another program may show in {} s at the latest",
                wait.as_secs() + 1
            )));
        }
        let why = "looking for a token or key that was not there";
        self.module.reload(epoch, why).map_err(|_| missing)
    }
}

/// What a failure calls for before the one retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It would fail again.
    None,
    /// The handle is stale: find the key again.
    FindAgain,
    /// Give up sessions and login of the token, and list the slots.
    Renew,
    /// The same, but without a retry: a failed `C_Login` is not repeated within a request.
    RenewOnly,
    /// `C_Finalize`, `C_Initialize`.
    Reload,
    /// Reload, if there was none for a while.
    LookAgain,
}

impl Remedy {
    /// Decides by the return value of the module and the function that gave it.
    pub fn of(error: &Error) -> Remedy {
        let (rv, function) = match error {
            Error::Module { rv, function } => (rv, function),
            Error::TokenNotFound(_) | Error::KeyNotFound(_) | Error::KeyHidden(_) => {
                return Remedy::LookAgain;
            }
            _ => return Remedy::None,
        };
        let remedy = match rv {
            RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid => Remedy::FindAgain,
            RvError::CryptokiNotInitialized => Remedy::Reload,
            RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::UserNotLoggedIn
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::DeviceRemoved
            | RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::HostMemory
            | RvError::FunctionFailed
            | RvError::GeneralError => Remedy::Renew,
            _ => Remedy::None,
        };
        match (remedy, function) {
            (Remedy::None, _) => Remedy::None,
            (_, Function::Login) => Remedy::RenewOnly,
            (remedy, _) => remedy,
        }
    }
}
