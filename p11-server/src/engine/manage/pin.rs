//! Changing a token's PIN, by the user or by the security officer; the server goes on with the new one.

use std::sync::Arc;

use p11_proto::Pin;
use p11_proto::message::{ChangePin, PinChanged};
use p11_uri::Uri;
use tracing::{info, warn};

use crate::engine::core::{Core, any};
use crate::engine::login::{Pins, Reset, same};
use crate::engine::module::TokenFlags;
use crate::engine::query::KeyQuery;
use crate::engine::token::Token;
use crate::engine::token::client::Client;
use crate::engine::token::session::PooledSession;
use crate::engine::token::turns::Lane;
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
        self.without_retry(access, self.module.timeouts().session, |client| {
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
        self.logins.check_room()?;
        let new = &request.new_pin;
        let was_the_servers = match (request.reset, &request.so_pin) {
            (true, Some(so_pin)) => {
                let servers = |session: &PooledSession<'_>| self.has_servers_pin(session, client);
                let reset = Reset {
                    so: so_pin,
                    new,
                    is_known: false,
                };
                self.reset_pin(client, &token, reset, servers)?
            }
            (true, None) => {
                return Err(Error::BadRequest(
                    "a reset needs the security officer's PIN, so_pin".into(),
                ));
            }
            (false, _) if query.own_pin.is_none() && query.access.is_restricted() => {
                return Err(Error::BadRequest(
                    "while a policy is in force, a change of the PIN needs the old one, old_pin"
                        .into(),
                ));
            }
            (false, _) => {
                let session = token.acquire(&self.module, client, Lane::Slow)?;
                self.logins
                    .change_pin(&session, client, query.pins(), new)?
            }
        };
        let stale = self.stale(client, &token, new, was_the_servers);
        match &stale {
            Some(stale) => warn!("changed the PIN of the token {}; {stale}", token.name()),
            None => info!("changed the PIN of the token {}", token.name()),
        }
        Ok(PinChanged::new(token.name()).stale(stale))
    }

    /// `C_InitPIN` by the security officer, who wants no other session to be open. Afterwards everybody has the
    /// login back. Answers whether the server goes on with the new PIN.
    pub fn reset_pin(
        &self,
        client: &Client<'_>,
        token: &Arc<Token>,
        reset: Reset<'_>,
        is_the_servers: impl Fn(&PooledSession<'_>) -> bool,
    ) -> Result<bool, Error> {
        let mut session = token.acquire(&self.module, client, Lane::Slow)?;
        // Before anybody is disturbed for a PIN that cannot be tried.
        self.logins.check_officer(&session, client, reset)?;
        let is_the_servers = is_the_servers(&session);
        session.reopen_alone(client)?;
        self.logins
            .reset_pin(&session, client, reset, is_the_servers)?;
        Ok(is_the_servers)
    }

    /// Whether the PIN that is about to be replaced is the server's, so that the server goes on with the new one. Where the token
    /// has not said so far, it is asked, and where it cannot be asked, the operator has probably meant it so.
    fn has_servers_pin(&self, session: &PooledSession<'_>, client: &Client<'_>) -> bool {
        let token = session.token();
        let told = || self.logins.has_servers_pin(token);
        if let Some(told) = told() {
            return told;
        }
        if !self.logins.is_meant_for(token) {
            return false;
        }
        let _ = self.logins.log_in(session, client, Pins { own: None });
        told().unwrap_or(true)
    }

    /// Where the configuration has another PIN than the token has now: each source alone. Of a token whose PIN was not the server's
    /// nothing is compared, since that would tell its users the server's PIN.
    fn stale(
        &self,
        client: &Client<'_>,
        token: &Token,
        new: &Pin,
        was_the_servers: bool,
    ) -> Option<String> {
        let (settings, token) = (self.settings(), token.name());
        if settings.pin_is_default || settings.pin.is_none() {
            let is_it = settings
                .pin
                .as_ref()
                .is_some_and(|default| same(default, new));
            let next = "or the next start uses the default";
            return (!is_it).then(|| {
                format!("no PIN is configured; set the new one of the token {token}, {next}")
            });
        }
        let used = settings.pin_origin.iter().zip(&settings.pin);
        let others = settings
            .other_pins
            .iter()
            .map(|(origin, pin)| (origin, pin));
        let (mut stale, mut is_told) = (Vec::new(), true);
        for (origin, pin) in used.chain(others) {
            let is_it = was_the_servers
                .then(|| self.logins.is_configured(client, origin, pin, new))
                .flatten();
            is_told &= is_it.is_some();
            if is_it != Some(true) {
                stale.push(origin.as_str());
            }
        }
        let hold = match (is_told, stale.as_slice()) {
            (_, []) => return None,
            (false, _) => "may hold",
            (true, [_]) => "holds",
            (true, _) => "hold",
        };
        Some(format!(
            "{} {hold} another PIN than the token {token} has now; if it is meant for this token, set the new one \
             there",
            stale.join(" and ")
        ))
    }
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
