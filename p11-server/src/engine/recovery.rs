//! One more try of a request that failed on the token, after what the CKR code calls for.
//!
//! There are three kinds of trouble: the key is stale, the life of its token is over, the module needs a
//! reload. Each is mended at most once in a while, whoever asks, so that a key that always fails costs its
//! own user alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cryptoki::error::RvError;
use tracing::{info, warn};

use super::core::Core;
use super::find::key::Key;
use super::token::client::Client;
use super::token::{Opened, Token};
use crate::error::{Error, Recovery};
use crate::service::Access;

/// How often a job begins anew where other requests change its token.
const MOST_CHANGES: usize = 16;

/// The key that a job works with, noted so that it is known when the job fails.
pub(crate) type FailedKey = Option<Arc<Key>>;

impl Core {
    /// Does a job, with one retry where the trouble is of a kind that a fresh start may heal.
    ///
    /// # Errors
    /// Those of the second try, or of the first where a second would fail as well.
    pub fn retry<T>(
        &self,
        access: &dyn Access,
        job: impl Fn(&Client<'_>, &mut FailedKey) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let client = Client::new(access, Instant::now() + self.module.timeouts().session);
        let module_life = self.module.life();
        let (error, key) = match self.attempt(&client, &job) {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        if !self.mend(&client, &module_life, &error, key.as_ref())? {
            return Err(self.with_hint(error));
        }
        info!("trying once more after this: {error}");
        let module_life = self.module.life();
        self.attempt(&client, &job).map_err(|(error, key)| {
            let _ = self.mend(&client, &module_life, &error, key.as_ref());
            error
        })
    }

    /// Does a job that must not be repeated. What is broken is mended for the next request.
    ///
    /// # Errors
    /// Those of the job.
    pub fn without_retry<T>(
        &self,
        access: &dyn Access,
        time: Duration,
        job: impl Fn(&Client<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let client = Client::new(access, Instant::now() + time);
        let module_life = self.module.life();
        let outcome = self.attempt(&client, |client, _| job(client));
        outcome.map_err(|(error, key)| {
            let _ = self.mend(&client, &module_life, &error, key.as_ref());
            error
        })
    }

    /// One try, with the key that failed.
    fn attempt<T>(
        &self,
        client: &Client<'_>,
        job: impl Fn(&Client<'_>, &mut FailedKey) -> Result<T, Error>,
    ) -> Result<T, (Error, FailedKey)> {
        self.reload_if_requested(client.deadline);
        let mut key = None;
        let run = |key: &mut FailedKey| {
            let outcome = job(client, key);
            drop(client.take_turn());
            outcome
        };
        let mut outcome = run(&mut key);
        for _ in 0..MOST_CHANGES {
            if let Err(Error::Changed { .. }) = outcome {
                if let Some(key) = key.take() {
                    self.keys.invalidate(&key);
                    self.contents.invalidate(&key.token);
                }
                outcome = run(&mut key);
            }
        }
        outcome.map_err(|error| (error, key))
    }

    /// Does what a failure calls for. Answers whether another try may fare better.
    ///
    /// # Errors
    /// Why a reload that is needed cannot be made now.
    fn mend(
        &self,
        client: &Client<'_>,
        module_life: &Arc<()>,
        error: &Error,
        key: Option<&Arc<Key>>,
    ) -> Result<bool, Error> {
        let place = client.take_place();
        Ok(match (error.recovery(), place) {
            (Recovery::None, _) => false,
            (Recovery::FindKeyAgain, place) => {
                if let Some(key) = key {
                    self.keys.invalidate(key);
                }
                if let Some((token, _)) = place {
                    self.contents.invalidate(&token);
                }
                true
            }
            (Recovery::NewLife, Some((token, life))) => {
                let recently = self.module.timeouts().longest_pause;
                if key.is_some_and(|key| is_of_this_key_alone(key, &life, recently)) {
                    return Ok(false);
                }
                self.new_life(module_life, &token, &life, error)
            }
            // No token is to blame.
            (Recovery::NewLife, None) => {
                let why = error.to_string();
                self.reload_and_retry(client, module_life, &why).is_ok()
            }
            // A login that failed is not repeated within a request.
            (Recovery::NewLifeWithoutRetry, place) => {
                if let Some((token, life)) = place {
                    self.new_life(module_life, &token, &life, error);
                }
                false
            }
            (Recovery::Reload, _) => {
                let why = error.to_string();
                self.reload_and_retry(client, module_life, &why)
                    .map(|()| true)?
            }
            (Recovery::ReloadForMissing, _) => {
                let why = "looking for a token that was not there";
                self.may_look_anew() && self.reload_and_retry(client, module_life, why).is_ok()
            }
        })
    }

    /// Before a request is answered by which tokens there are: other programs make tokens, too, and some modules
    /// show those by a reload alone.
    pub fn look_anew(&self, client: &Client<'_>) {
        let why = "looking for tokens that other programs have made";
        if self.may_look_anew() && self.reload(client, &self.module.life(), why).is_ok() {
            client.forget_logins();
        }
    }

    fn may_look_anew(&self) -> bool {
        self.shows_by_reload() && self.until_looking_anew().is_zero()
    }

    /// How long what other programs have made may stay out of sight: no time where that is known to be there. While no token is in use a
    /// reload disturbs nobody.
    fn until_looking_anew(&self) -> Duration {
        let timeouts = self.module.timeouts();
        let pause = match (self.module.hides_new_tokens(), self.registry.has_no_token()) {
            (true, _) => Duration::ZERO,
            (false, true) => timeouts.first_pause,
            (false, false) => timeouts.missing,
        };
        let wait = pause.saturating_sub(self.module.age());
        wait.max(self.module.wait())
    }

    /// Whether the module is known to show tokens that other programs have made by a reload alone. Without a slot that
    /// is tried with every module: p11-kit's client asks for slots only once, and there is nobody whom it could disturb.
    fn shows_by_reload(&self) -> bool {
        let is_softhsm = |name: &str| name.starts_with("SoftHSM");
        self.settings().reload_for_new_tokens
            || self.module.manufacturer().is_some_and(is_softhsm)
            || self.registry.has_no_slot()
    }

    /// Gives up the life of a token, not too often. One that was of no use at all calls for a reload, by the
    /// next request.
    fn new_life(
        &self,
        module_life: &Arc<()>,
        token: &Token,
        life: &Arc<Opened>,
        error: &Error,
    ) -> bool {
        let is_unclear = matches!(
            error.rv(),
            Some(
                RvError::GeneralError
                    | RvError::FunctionFailed
                    | RvError::DeviceError
                    | RvError::DeviceMemory
                    | RvError::HostMemory
            )
        );
        if is_unclear && token.is_current(life) && !life.is_proved() {
            self.module.request_reload(module_life, &error.to_string());
        }
        token.invalidate_with_pause(life, self.module.timeouts())
    }

    fn reload(&self, client: &Client<'_>, seen: &Arc<()>, why: &str) -> Result<(), Error> {
        self.module
            .reload(seen, why, client.deadline, &|| self.reset())
            .inspect_err(|later| warn!("{later}"))
    }

    /// The same after a try, whose PIN is not sent once more.
    fn reload_and_retry(
        &self,
        client: &Client<'_>,
        seen: &Arc<()>,
        why: &str,
    ) -> Result<(), Error> {
        self.reload(client, seen, why)?;
        client.set_reloaded();
        Ok(())
    }

    /// A token that is not there may have come into being since the module was initialised.
    fn with_hint(&self, error: Error) -> Error {
        let wait = self.until_looking_anew();
        if error.recovery() != Recovery::ReloadForMissing
            || !self.shows_by_reload()
            || wait.is_zero()
        {
            return error;
        }
        error.with_hint(&format!(
            "; what was added by another program may show in {} s at the latest",
            wait.as_secs() + 1
        ))
    }
}

/// Whether the token is well, since others have signed with it recently while this key fails.
fn is_of_this_key_alone(key: &Key, life: &Opened, recently: Duration) -> bool {
    let now = Instant::now();
    let began = key.failing_since().unwrap_or(now);
    life.has_signed_since(
        now.checked_sub(recently)
            .map_or(began, |then| then.max(began)),
    )
}
