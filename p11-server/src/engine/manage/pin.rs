//! Changing a token's PIN, by the user or by the security officer; the server goes on with the new one.

use cryptoki::slot;
use p11_proto::Pin;
use p11_proto::message::{ChangePin, PinChanged};
use p11_uri::Uri;
use tracing::{info, warn};

use crate::engine::core::{Core, any};
use crate::engine::login::pin_guard::Pins;
use crate::engine::login::same;
use crate::engine::module::Call;
use crate::engine::query::KeyQuery;
use crate::engine::token::Login;
use crate::engine::token::{Token, is_full};
use crate::error::Error;
use crate::lock::lock;
use crate::service::Access;

impl Core {
    /// Changes the PIN of a token's user.
    pub fn change_pin(
        &self,
        request: &ChangePin,
        access: &dyn Access,
    ) -> Result<PinChanged, Error> {
        let uri = any(&request.uri);
        let query = self.query(uri, request.old_pin.as_ref(), access)?;
        self.once(self.module.timeouts().request, |call, _| {
            self.change_pin_now(call, request, &query)
        })
    }

    fn change_pin_now(
        &self,
        call: &Call<'_>,
        request: &ChangePin,
        query: &KeyQuery<'_>,
    ) -> Result<PinChanged, Error> {
        let token = self.tokens.one(call, &query.in_scope()?, query.access)?;
        query.access.check(&token.info(), None)?;
        let flags = token.flags();
        if !flags.login_required() {
            return Err(Error::NotSupported(format!(
                "the token {} asks for no PIN, so there is nothing to change",
                token.name()
            )));
        }
        refuse_pin_pad(&flags, &Uri::of_token(&token.info()))?;
        let old = self.guard.choose(&token, query.pins());
        let old = old.as_deref();
        let new = &request.new_pin;
        match (request.reset, &request.so_pin, old) {
            (true, Some(so_pin), _) => self.reset(call, &token, so_pin, new)?,
            (true, None, _) => {
                return Err(Error::BadRequest(
                    "a reset needs the security officer's PIN, so_pin".into(),
                ));
            }
            (false, _, Some(old)) => self.replace(call, &token, (old, new), query.pins())?,
            (false, _, None) => {
                return Err(Error::PinRequired {
                    token: token.name().into(),
                });
            }
        }
        let stale = stale(query, old.filter(|_| !request.reset), new);
        match &stale {
            Some(stale) => warn!("changed the PIN of the token {}; {stale}", token.name()),
            None => info!("changed the PIN of the token {}", token.name()),
        }
        Ok(PinChanged::new(token.name()).stale(stale))
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
            self.guard.check_user(call, token, &login, Some(old))?;
            let was_logged_in = matches!(&*login, Login::In(era, _) if *era == token.era(call));
            let exclusive = token.lock_exclusively(call)?;
            let session = match exclusive.open() {
                Err(error) if is_full(&error) => exclusive.open_alone()?,
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
    pub fn reset(&self, call: &Call<'_>, token: &Token, so: &Pin, new: &Pin) -> Result<(), Error> {
        {
            let login = lock(&token.login);
            // Before anybody is disturbed for a PIN that cannot be tried.
            self.guard.check_officer(call, token, so)?;
            let exclusive = token.lock_exclusively(call)?;
            let session = exclusive.open_alone()?;
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

/// Where the configuration still has the PIN that was changed.
fn stale(query: &KeyQuery<'_>, old: Option<&Pin>, new: &Pin) -> Option<String> {
    let configured = query.settings.pin.as_ref()?;
    let is_old = old.is_none_or(|old| same(configured, old));
    if same(configured, new) || !is_old {
        return None;
    }
    Some(match &query.settings.pin_origin {
        Some(origin) => format!("{origin} still holds another PIN; set the new one there"),
        None => "no PIN is configured; set the new one, or the next start uses the default".into(),
    })
}

/// Refuses tokens whose PINs never pass through here.
pub(super) fn refuse_pin_pad(flags: &slot::TokenInfo, uri: &Uri) -> Result<(), Error> {
    match flags.protected_authentication_path() {
        true => Err(Error::NotSupported(format!(
            "the PIN of {uri} is typed at the token itself; set it with the token's own tool"
        ))),
        false => Ok(()),
    }
}
