//! An old PIN, or the security officer's, and a new one enter: the token takes it, and the server goes on.

use cryptoki::slot::TokenInfo;
use p11_proto::message::{ChangePin, PinChanged};
use p11_proto::{Pin, UriText};
use p11_uri::Uri;
use tracing::{info, warn};

use super::asked::Asked;
use super::guard::Pins;
use super::login::{self, Login};
use super::module::Call;
use super::session::{Token, is_full};
use super::{DEADLINE, Engine, lock};
use crate::error::Error;
use crate::service::Access;

impl Engine {
    pub(super) fn change(
        &self,
        request: &ChangePin,
        access: &dyn Access,
    ) -> Result<PinChanged, Error> {
        let uri = any(&request.uri);
        let asked = self.asked(uri, request.old_pin.as_ref(), access)?;
        self.once(DEADLINE, |call, _| self.change_now(call, request, &asked))
    }

    fn change_now(
        &self,
        call: &Call<'_>,
        request: &ChangePin,
        asked: &Asked<'_>,
    ) -> Result<PinChanged, Error> {
        let token = self.tokens.one(call, &asked.in_scope()?, asked.access)?;
        asked.access.check(&token.facts(), None)?;
        let info = token.info();
        if !info.login_required() {
            return Err(Error::NotSupported(format!(
                "the token {} asks for no PIN, so there is nothing to change",
                token.name()
            )));
        }
        refuse_pin_pad(&info, &Uri::of_token(&token.facts()))?;
        let old = self.guard.choose(&token, asked.pins());
        let old = old.as_deref();
        let new = &request.new_pin;
        match (request.reset, &request.so_pin, old) {
            (true, Some(so_pin), _) => self.reset(call, &token, so_pin, new)?,
            (true, None, _) => {
                return Err(Error::BadRequest(
                    "a reset needs the security officer's PIN, so_pin".into(),
                ));
            }
            (false, _, Some(old)) => self.replace(call, &token, (old, new), asked.pins())?,
            (false, _, None) => {
                return Err(Error::PinRequired {
                    token: token.name().into(),
                });
            }
        }
        let stale = stale(asked, old.filter(|_| !request.reset), new);
        match &stale {
            Some(stale) => warn!("changed the PIN of the token {}; {stale}", token.name()),
            None => info!("changed the PIN of the token {}", token.name()),
        }
        Ok(PinChanged {
            uri: token.name().into(),
            stale,
        })
    }

    /// By the user. The login goes on, or is made again.
    fn replace(
        &self,
        call: &Call<'_>,
        token: &Token,
        change: (&Pin, &Pin),
        pins: Pins<'_>,
    ) -> Result<(), Error> {
        let (old, new) = change;
        let was_logged_in = {
            // Before the sessions, as for every login; until we are done nobody logs in with the old PIN.
            let mut login = lock(&token.login);
            self.guard.admit_user(call, token, &login, Some(old))?;
            let was_logged_in = matches!(&*login, Login::In(era, _) if *era == token.era(call));
            let taken = token.take(call)?;
            let session = match taken.open() {
                Err(error) if is_full(&error) => taken.open_alone()?,
                opened => opened?,
            };
            let outcome =
                self.guard
                    .change_pin(call, token, &mut login, &session, change, pins.server);
            let _ = session.close();
            outcome?;
            was_logged_in
        };
        if was_logged_in {
            self.log_in_again(call, token, new);
        }
        Ok(())
    }

    /// By the security officer, who wants no other session to be open.
    pub(super) fn reset(
        &self,
        call: &Call<'_>,
        token: &Token,
        so: &Pin,
        new: &Pin,
    ) -> Result<(), Error> {
        {
            let login = lock(&token.login);
            // Before anybody is disturbed for a PIN that cannot be tried.
            self.guard.admit_officer(call, token, so)?;
            let taken = token.take(call)?;
            let session = taken.open_alone()?;
            let outcome = self
                .guard
                .reset_pin(call, token, &login, &session, (so, new));
            let _ = session.close();
            outcome?;
        }
        self.log_in_again(call, token, new);
        Ok(())
    }

    /// Gives everybody back the login, where it had to end for the change. That is made, whatever
    /// becomes of this.
    fn log_in_again(&self, call: &Call<'_>, token: &Token, new: &Pin) {
        let own = Some(new);
        if let Err(error) = self.guard.log_in(call, token, Pins { own, server: None }) {
            warn!("not logged in with the new PIN yet: {error}");
        }
    }
}

/// The URI of a request that may leave it away.
pub fn any(uri: &Option<UriText>) -> &str {
    uri.as_deref().unwrap_or("pkcs11:")
}

/// Where the configuration still has the PIN that was changed.
fn stale(asked: &Asked<'_>, old: Option<&Pin>, new: &Pin) -> Option<String> {
    let configured = asked.settings.pin.as_ref()?;
    let is_old = old.is_none_or(|old| login::same(configured, old));
    if login::same(configured, new) || !is_old {
        return None;
    }
    Some(match &asked.settings.pin_origin {
        Some(origin) => format!("{origin} still holds another PIN; set the new one there"),
        None => "no PIN is configured; set the new one, or the next start uses the default".into(),
    })
}

/// Refuses tokens whose PINs never pass through here.
pub fn refuse_pin_pad(info: &TokenInfo, uri: &Uri) -> Result<(), Error> {
    match info.protected_authentication_path() {
        true => Err(Error::NotSupported(format!(
            "the PIN of {uri} is typed at the token itself; set it with the token's own tool"
        ))),
        false => Ok(()),
    }
}
