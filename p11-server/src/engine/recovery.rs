//! One more try of a request that failed on the token, after what the CKR code calls for.
//!
//! There are three kinds of trouble: the key is stale, the life of its token is over, the module needs a
//! reload. Each is mended at most once in a while, whoever asks, so that a key that always fails costs its
//! own user alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cryptoki::context::Function;
use cryptoki::error::RvError;
use tracing::{info, warn};

use super::core::Core;
use super::find::key::Key;
use super::module::Needs;
use super::token::client::Client;
use super::token::{GivenUp, Opened, Token};
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
                self.new_life(client, module_life, (&token, &life), error)
            }
            // A slot whose token cannot be made is trouble of who wants it.
            (Recovery::NewLife, None) if matches!(error.function(), Some(Function::InitToken)) => {
                let recently = self.module.timeouts().longest_pause;
                let then = Instant::now().checked_sub(recently);
                if !then.is_some_and(|then| self.has_signed_since(then)) {
                    self.module.request_reload(module_life, &error.to_string());
                }
                false
            }
            // No token is to blame.
            (Recovery::NewLife, None) => {
                let why = error.to_string();
                self.reload_and_retry(client, module_life, &why).is_ok()
            }
            // A login that failed is not repeated within a request.
            (Recovery::NewLifeWithoutRetry, place) => {
                if let Some((token, life)) = place {
                    self.new_life(client, module_life, (&token, &life), error);
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

    /// Before a token is made, or one is taken because it is the only one.
    ///
    /// # Errors
    /// [`Error::Busy`] while another program's tokens are out of sight, since the module cannot be reloaded.
    pub fn check_tokens_are_known(&self) -> Result<(), Error> {
        if !self.module.hides_new_tokens() {
            return Ok(());
        }
        let wait = self.module.wait();
        Err(Error::Busy(format!(
            "another program has made or deleted tokens, which the PKCS#11 module tells after a reload alone; that can be \
             made in {} s, and when no call runs in the module for long; try again then",
            wait.as_secs() + 1
        )))
    }

    fn may_look_anew(&self) -> bool {
        self.shows_by_reload() && self.until_looking_anew().is_zero()
    }

    /// How long what other programs have made may stay out of sight: no time where that is known to be there. While no token is in use a
    /// reload disturbs nobody.
    fn until_looking_anew(&self) -> Duration {
        let timeouts = self.module.timeouts();
        let pause = match (
            self.module.hides_new_tokens(),
            self.registry.has_no_token().unwrap_or(true),
        ) {
            (true, _) => Duration::ZERO,
            (false, true) => timeouts.first_pause,
            (false, false) => timeouts.missing,
        };
        let wait = pause.saturating_sub(self.module.age());
        wait.max(self.module.wait())
    }

    /// Whether the module is known to show tokens that other programs have made by a reload alone. Without a token that
    /// is tried with every module: there is nobody whom it could disturb.
    fn shows_by_reload(&self) -> bool {
        let is_softhsm = |name: &str| name.starts_with("SoftHSM");
        self.settings().reload_for_new_tokens
            || self.module.manufacturer().is_some_and(is_softhsm)
            || self.registry.has_no_token() == Some(true)
    }

    /// Gives up the life of a token, not too often. Answers whether another try may fare better.
    ///
    /// One that was of no use at all calls for a reload, by the next request, and so does a token that fails in one life
    /// after the other, unless others are well: they would have to log in anew.
    fn new_life(
        &self,
        client: &Client<'_>,
        module_life: &Arc<()>,
        (token, life): (&Token, &Arc<Opened>),
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
        let why = error.to_string();
        if is_unclear && token.is_current(life) && !life.is_proved() {
            self.module.request_reload(module_life, &why);
        }
        match token.give_up(life, &why, self.module.timeouts()) {
            GivenUp::Yes => true,
            GivenUp::No => false,
            GivenUp::Again(since) => {
                let is_due = self.module.wait().is_zero();
                if is_due && !self.has_signed_since(since) {
                    let _ = self.reload_and_retry(client, module_life, &why);
                }
                true
            }
        }
    }

    /// Whether any token has signed since then, and not long ago: the module is well.
    fn has_signed_since(&self, then: Instant) -> bool {
        let recently = self.module.timeouts().longest_pause;
        let now = Instant::now();
        let since = now
            .checked_sub(recently)
            .map_or(then, |begin| begin.max(then));
        let known = self.registry.known().into_iter();
        known
            .map(|token| token.life())
            .any(|life| life.has_signed_since(since))
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
        let may_hide = matches!(self.module.needs(), Needs::Tpm | Needs::Unknown);
        if matches!(error, Error::TokenNotFound(_)) && may_hide && !self.shows_by_reload() {
            return error.with_hint(
                "; what was added by another program may show after SIGHUP, or with --reload-for-new-tokens",
            );
        }
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
