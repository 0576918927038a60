//! Which PIN is the server's for a token, and whether it goes before a client's.

use std::borrow::Cow;
use std::sync::Arc;

use p11_proto::Pin;

use super::checks::same;
use super::digests::Salted;
use super::known::Since;
use super::states::{Owner, Role};
use super::{Given, Logins, name_of};
use crate::engine::settings::Settings;
use crate::engine::token::{Login, Token};
use crate::error::Error;

/// So many tokens of clients are remembered.
const MOST_OF_CLIENTS: usize = 1000;

impl Logins {
    /// The server's PIN for a token, if it has one.
    pub(super) fn server_pin<'s>(
        &self,
        token: &Token,
        settings: &'s Settings,
    ) -> Option<(Cow<'s, Pin>, Owner)> {
        if self.is_clients(token, settings) {
            return None;
        }
        if let Some(replaced) = self.replaced.lock().get(token.id()) {
            return Some((Cow::Owned(replaced.clone()), Owner::Server));
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

    /// Whether a client has set the PIN of a token: nothing of what the server does with it may tell whether that is the
    /// server's. It is the server's again where the operator names it and has said so since.
    pub(super) fn is_clients(&self, token: &Token, settings: &Settings) -> bool {
        let name = self.remembered(token);
        let since = self.guard.lock().clients.get(&name).copied();
        since.is_some_and(|since| since == Since::Now || !self.is_named(token, settings))
    }

    /// Whether the server's URI names this token alone, of all that were seen.
    fn is_named(&self, token: &Token, settings: &Settings) -> bool {
        let scope = &settings.scope;
        let names_one = scope.token().is_some() || scope.serial().is_some();
        let is_other =
            |other: &&Arc<Token>| other.id() != token.id() && scope.matches_token(&other.info());
        names_one
            && scope.matches_token(&token.info())
            && !self.registry.known().iter().any(|other| is_other(&other))
    }

    /// The PIN of a token was set through us: the server goes on with it where the old one was its own, or it is to be. Else the
    /// token is its clients'.
    pub(super) fn replace(&self, token: &Token, new: &Pin, was_the_servers: bool) {
        let name = self.remembered(token);
        self.change(|guard| match was_the_servers {
            true => drop(guard.clients.remove(&name)),
            false => drop(guard.clients.insert(name, Since::Now)),
        });
        let settings = self.settings();
        let is_configured = Self::configured(&settings).is_some_and(|(pin, _)| same(&pin, new));
        let mut replaced = self.replaced.lock();
        match was_the_servers && !is_configured {
            true => replaced.insert(token.id().clone(), new.clone()),
            false => replaced.remove(token.id()),
        };
    }

    /// Clients set PINs of so many tokens that nobody could remember whose they are.
    ///
    /// # Errors
    /// [`Error::NotSupported`]
    pub fn check_room(&self) -> Result<(), Error> {
        match self.guard.lock().clients.len() < MOST_OF_CLIENTS {
            true => Ok(()),
            false => Err(Error::NotSupported(format!(
                "clients have set the PINs of {MOST_OF_CLIENTS} tokens since the machine was started, and no more are \
                 remembered"
            ))),
        }
    }

    /// What a token is remembered as.
    fn remembered(&self, token: &Token) -> Salted {
        let name = name_of(token.id(), &token.place());
        self.guard.lock().salted(b"token", name.as_bytes())
    }

    /// Whether the server's PIN for a token was changed through us.
    pub(super) fn was_replaced(&self, token: &Token) -> bool {
        self.replaced.lock().contains_key(token.id())
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
