//! One more try of a request that failed on the token, after what the CKR code calls for.
//!
//! The decision rests on the CKR code alone: the key is found again, the token's sessions and login are
//! given up and the slots listed, or the module is reloaded.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::core::Core;
use super::find::key::Key;
use super::module::Call;
use crate::error::{Error, Recovery};

/// How often a job begins anew where other requests change its token.
const MOST_CHANGES: usize = 16;

/// The key that a job works with, noted so that it and its token are known when the job fails.
pub(crate) type FailedKey = Option<Arc<Key>>;

impl Core {
    /// Does a job, with one retry where the trouble is of a kind that a fresh start may heal.
    ///
    /// # Errors
    /// Those of the second try, or of the first where a second would fail as well.
    pub fn retry<T>(
        &self,
        job: impl Fn(&Call<'_>, &mut FailedKey) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = self.module.timeouts().request;
        let (epoch, error) = match self.attempt(deadline, &job) {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        match error.recovery() {
            Recovery::None | Recovery::NewLifeWithoutRetry => return Err(error),
            Recovery::FindKeyAgain | Recovery::NewLife => {
                info!("trying once more after this: {error}")
            }
            Recovery::Reload => self.module.reload(epoch, &error.to_string())?,
            Recovery::ReloadForMissing => self.look_again(epoch, error)?,
        }
        self.once(deadline, job)
    }

    /// Does a job that must not be repeated. What is broken is mended for the next request.
    ///
    /// # Errors
    /// Those of the job.
    pub fn once<T>(
        &self,
        deadline: Duration,
        job: impl Fn(&Call<'_>, &mut FailedKey) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.attempt(deadline, &job).map_err(|(epoch, error)| {
            // Sessions and handles may not have been the trouble, so the module may be.
            if let Recovery::FindKeyAgain | Recovery::NewLife | Recovery::Reload = error.recovery()
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
        job: impl Fn(&Call<'_>, &mut FailedKey) -> Result<T, Error>,
    ) -> Result<T, (u64, Error)> {
        let call = self.module.enter(deadline).map_err(|error| (0, error))?;
        let mut failed = None;
        let mut outcome = job(&call, &mut failed);
        for _ in 0..MOST_CHANGES {
            if let Err(Error::Changed { .. }) = outcome {
                outcome = job(&call, &mut failed);
            }
        }
        outcome.map_err(|error| {
            match (error.recovery(), failed) {
                (Recovery::FindKeyAgain, Some(key)) => self.keys.invalidate(&key),
                (Recovery::NewLife | Recovery::NewLifeWithoutRetry, Some(key)) => {
                    key.token.invalidate(&call, key.era);
                }
                // It failed before there was a key, on the token that it was looking at.
                (Recovery::NewLife | Recovery::NewLifeWithoutRetry, None) => {
                    if let Some((name, era)) = call.token() {
                        for token in self.tokens.known().iter().filter(|t| t.name() == name) {
                            token.invalidate(&call, era);
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
        let wait = self.module.timeouts().missing;
        let wait = wait.saturating_sub(self.module.age());
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
