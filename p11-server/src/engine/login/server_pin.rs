//! Which PIN is the server's for a token, and whether it goes before a client's.

use std::borrow::Cow;
use std::sync::Arc;

use p11_proto::Pin;

use super::states::{Owner, Role};
use super::{Given, Logins};
use crate::engine::settings::Settings;
use crate::engine::token::{Login, Token};

impl Logins {
    /// The server's PIN for a token, if it has one.
    pub(super) fn server_pin<'s>(
        &self,
        token: &Token,
        settings: &'s Settings,
    ) -> Option<(Cow<'s, Pin>, Owner)> {
        if let Some(replaced) = self.replaced.lock().get(token.id()) {
            return Some((Cow::Owned(replaced.clone()?), Owner::Server));
        }
        Self::configured(settings)
    }

    /// The PIN that the operator has set, or the default.
    pub(super) fn configured(settings: &Settings) -> Option<(Cow<'_, Pin>, Owner)> {
        let owner = match settings.pin_is_default {
            true => Owner::Default,
            false => Owner::Server,
        };
        Some((Cow::Borrowed(settings.pin.as_ref()?), owner))
    }

    /// Whether the server's PIN for a token was changed through us.
    pub(super) fn was_replaced(&self, token: &Token) -> bool {
        matches!(self.replaced.lock().get(token.id()), Some(Some(_)))
    }

    /// Whether the server's PIN is tried before a client's: the operator has set it for this token, or the token has
    /// accepted it before, and not the client's since.
    pub(super) fn goes_first(
        &self,
        token: &Token,
        server: Given<'_>,
        own: Option<Given<'_>>,
        settings: &Settings,
    ) -> bool {
        let subject = self.subject(token, Role::User);
        let digest = |given: Given<'_>| given.pin.map(|pin| self.digest(&subject, pin));
        let (servers, own) = (digest(server), own.and_then(digest));
        let told = self.guard.lock().servers_first(&subject, servers, own);
        if let Some(told) = told {
            return told;
        }
        let is_in_scope =
            |other: &Arc<Token>| !other.is_absent() && settings.scope.matches_token(&other.info());
        let in_scope = self.registry.known().into_iter().filter(is_in_scope);
        server.owner == Owner::Server && in_scope.count() <= 1
    }

    /// Whether it is the PIN that the token has accepted last.
    pub(super) fn is_accepted(&self, token: &Token, given: Given<'_>) -> bool {
        let subject = self.subject(token, Role::User);
        let digest = given.pin.map(|pin| self.digest(&subject, pin));
        digest.is_some_and(|digest| self.guard.lock().is_accepted(&subject, &digest))
    }

    /// Whether the PIN of a token that the security officer is about to replace is the server's; `None` where the token has
    /// not said so far.
    pub fn has_servers_pin(&self, token: &Token) -> Option<bool> {
        let settings = self.settings();
        let Some((server, owner)) = self.server_pin(token, &settings) else {
            return Some(false);
        };
        let server = Given {
            pin: Some(&server),
            owner,
        };
        if self.is_accepted(token, server) {
            return Some(true);
        }
        let subject = self.subject(token, Role::User);
        let digest = server.pin.map(|pin| self.digest(&subject, pin));
        let is_refused = |digest| self.guard.lock().is_refused(&subject, &digest);
        let in_other_hands = matches!(
            token.life().login_state(),
            Login::In {
                by_server: false,
                ..
            }
        );
        match digest.is_some_and(is_refused) || in_other_hands {
            true => Some(false),
            false => None,
        }
    }

    /// Whether the operator has most probably set the server's PIN for this token.
    pub fn is_meant_for(&self, token: &Token) -> bool {
        let settings = self.settings();
        let server = self.server_pin(token, &settings);
        server.is_some_and(|(server, owner)| {
            let server = Given {
                pin: Some(&server),
                owner,
            };
            self.goes_first(token, server, None, &settings)
        })
    }
}

/// Which PIN is sent first, and which one where that is wrong. `None` where there is none.
pub(super) fn order<P>(
    server: Option<P>,
    own: Option<P>,
    servers_first: impl FnOnce(&P, &P) -> bool,
) -> Option<(P, Option<P>)> {
    match (server, own) {
        (Some(server), Some(own)) if servers_first(&server, &own) => Some((server, Some(own))),
        (_, Some(own)) => Some((own, None)),
        (server, None) => Some((server?, None)),
    }
}
