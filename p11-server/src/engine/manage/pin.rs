//! Changing a token's PIN, by the user or by the security officer; the server goes on with the new one.

use std::sync::Arc;

use p11_proto::Pin;
use p11_proto::message::{ChangePin, PinChanged};
use p11_uri::Uri;
use tracing::{info, warn};

use crate::engine::core::{Core, any};
use crate::engine::login::pin_guard::Pins;
use crate::engine::login::same;
use crate::engine::module::TokenFlags;
use crate::engine::query::KeyQuery;
use crate::engine::token::client::Client;
use crate::engine::token::turns::Lane;
use crate::engine::token::{Login, Token};
use crate::error::Error;
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
        self.once(access, self.module.timeouts().session, |client| {
            self.change_pin_now(client, request, &query)
        })
    }

    fn change_pin_now(
        &self,
        client: &Client<'_>,
        request: &ChangePin,
        query: &KeyQuery<'_>,
    ) -> Result<PinChanged, Error> {
        let token = self.registry.one(client, &query.in_scope()?)?;
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
            (true, Some(so_pin), _) => self.reset_pin(client, &token, so_pin, new)?,
            (true, None, _) => {
                return Err(Error::BadRequest(
                    "a reset needs the security officer's PIN, so_pin".into(),
                ));
            }
            (false, _, Some(old)) => {
                let session = token.acquire(&self.module, client, Lane::Slow)?;
                let server = query.pins().server;
                self.guard.change_pin(&session, (old, new), server)?;
            }
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

    /// `C_InitPIN` by the security officer, who wants no other session to be open. Afterwards everybody has the
    /// login back.
    pub fn reset_pin(
        &self,
        client: &Client<'_>,
        token: &Arc<Token>,
        so: &Pin,
        new: &Pin,
    ) -> Result<(), Error> {
        let mut session = token.acquire(&self.module, client, Lane::Slow)?;
        // Before anybody is disturbed for a PIN that cannot be tried.
        self.guard.check_officer(&session, so)?;
        let old = match session.life().login_state() {
            Login::In(old) => old,
            Login::Out => None,
        };
        session.reopen_alone(client)?;
        self.guard
            .reset_pin(&session, client, old.as_ref(), (so, new))?;
        // That is made, whatever becomes of this.
        let pins = Pins {
            own: Some(new),
            server: None,
        };
        if let Err(error) = self.guard.log_in(&session, client, pins) {
            warn!("not logged in with the new PIN yet: {error}");
        }
        Ok(())
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
pub(super) fn refuse_pin_pad(flags: &TokenFlags, uri: &Uri) -> Result<(), Error> {
    match flags.protected_authentication_path() {
        true => Err(Error::NotSupported(format!(
            "the PIN of {uri} is typed at the token itself; set it with the token's own tool"
        ))),
        false => Ok(()),
    }
}
