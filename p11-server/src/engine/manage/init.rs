//! Initialising tokens. One that is in use is never harmed.

use std::sync::Arc;

use p11_proto::Pin;
use p11_proto::message::{InitToken, TokenReady};
use p11_uri::{TokenInfo, Uri};
use tracing::info;

use super::list::in_scope_before_it_has_a_label;
use super::pin::refuse_pin_pad;
use crate::engine::core::{Core, any};
use crate::engine::login::Reset;
use crate::engine::module::TokenFlags;
use crate::engine::query::KeyQuery;
use crate::engine::token::client::Client;
use crate::engine::token::lookup::hint;
use crate::engine::token::{SlotToken, Token};
use crate::error::{Error, list};
use crate::service::Access;

/// `CK_TOKEN_INFO.label` has 32 bytes (PKCS#11 section 3.2).
const LONGEST_LABEL: usize = 32;

impl Core {
    /// Makes a token ready for use: initialised, with a label and a user's PIN.
    pub fn init_token(
        &self,
        request: &InitToken,
        access: &dyn Access,
    ) -> Result<TokenReady, Error> {
        check_label(&request.label)?;
        let uri = any(&request.uri);
        let query = self.query(uri, request.pin.as_ref(), access)?;
        self.without_retry(access, self.module.timeouts().long_request, |client| {
            let late = || Error::Timeout("another token is being initialised; try again".into());
            let alone = self.initializing.lock_until(client.deadline);
            let _alone = alone.ok_or_else(late)?;
            self.look_anew(client);
            self.init_token_now(client, request, &query)
        })
    }

    fn init_token_now(
        &self,
        client: &Client<'_>,
        request: &InitToken,
        query: &KeyQuery<'_>,
    ) -> Result<TokenReady, Error> {
        let scope = &query.settings.scope;
        let uri = Uri::parse(query.uri)?;
        check_scope(&uri, query)?;
        let slots = self.registry.scan(client)?;
        let in_scope = |slot: &&SlotToken| in_scope_before_it_has_a_label(scope, &slot.info);
        let all: Vec<_> = slots.all.iter().filter(in_scope).collect();
        let named = all
            .iter()
            .copied()
            .filter(|slot| uri.matches_token(&slot.info));
        let (made, free): (Vec<_>, Vec<_>) = named.partition(|slot| slot.flags.token_initialized());

        let is_done = made.iter().all(|slot| is_usable(&slot.flags));
        if names_free_slot(&uri) && free.is_empty() && is_done {
            return Err(none_free(query, &uri));
        }
        // A slot is named to make a token there. One that is made already is in another slot.
        let wherever = uri.without_slot();
        let labelled = || {
            let of_label = |slot: &&&SlotToken| {
                slot.flags.token_initialized() && slot.info.label == request.label
            };
            let labelled = all.iter().filter(of_label).copied();
            labelled.filter(|slot| wherever.matches_token(&slot.info))
        };
        let usable = labelled().find(|slot| is_usable(&slot.flags));
        match usable.or_else(|| labelled().next()) {
            Some(slot) if is_usable(&slot.flags) => return self.as_it_is(query, &slot.info),
            // An initialisation that was cut short is brought to its end.
            Some(slot) => {
                let token = self.registry.one(client, &Uri::of_token(&slot.info))?;
                let is_known = request.so_pin.is_none() && query.own_pin.is_none();
                return self.finish(client, request, query, (&token, is_known));
            }
            None => {}
        }
        let is_ours =
            |slot: &&&SlotToken| is_usable(&slot.flags) && scope.matches_token(&slot.info);
        let usable: Vec<_> = made.iter().filter(is_ours).collect();
        match (free.as_slice(), usable.as_slice()) {
            ([slot], _) => self.initialize(client, request, query, slot),
            ([], [slot]) => self.as_it_is(query, &slot.info),
            ([], []) => Err(none_free(query, &uri)),
            ([], several) => Err(Error::AmbiguousToken(format!(
                "Found multiple initialized tokens, none of them labelled {:?}, and no slot that is \
                 free: {}",
                request.label,
                names(several.iter().map(|slot| Uri::of_token(&slot.info)))
            ))),
            (several, _) => Err(Error::AmbiguousToken(format!(
                "several tokens could be initialised; name one by its slot-id: {}",
                names(several.iter().map(|slot| Uri::of_slot(&slot.info)))
            ))),
        }
    }

    fn as_it_is(&self, query: &KeyQuery<'_>, info: &TokenInfo) -> Result<TokenReady, Error> {
        query.access.check(info, None)?;
        Ok(TokenReady::new(Uri::of_token(info).to_string(), false))
    }

    /// `C_InitToken`, then the user's PIN by the security officer.
    fn initialize(
        &self,
        client: &Client<'_>,
        request: &InitToken,
        query: &KeyQuery<'_>,
        slot: &SlotToken,
    ) -> Result<TokenReady, Error> {
        query.access.check(&slot.info, None)?;
        refuse_pin_pad(&slot.flags, &Uri::of_slot(&slot.info))?;
        let mut labelled = TokenInfo::clone(&slot.info);
        labelled.label.clone_from(&request.label);
        let (so_pin, pin) = pins(request, query, &labelled)?;
        let serial = |slot: &SlotToken| slot.info.serial.clone();
        let before = self.registry.scan(client)?;
        let before = before
            .all
            .iter()
            .filter(|slot| slot.flags.token_initialized());
        let others: Vec<_> = before.map(serial).collect();
        self.check_tokens_are_known()?;
        if query.own_pin.is_some() {
            self.logins.check_room()?;
        }
        let guard = self.module.guard(client.deadline)?;
        let made = self
            .logins
            .init_token(&guard, client, slot, (&so_pin, &pin), &request.label);
        drop(guard);
        made.map_err(|error| self.with_obstacle(error, client.access))?;
        self.module.set_token_made();
        info!(
            "initialised the token in {} with label {:?}",
            Uri::of_slot(&slot.info),
            request.label
        );
        // Its serial number is new, and perhaps its slot; others may have its label.
        let after = self.registry.scan(client)?;
        let made = after.all.iter().find(|new| {
            new.flags.token_initialized()
                && new.info.label == request.label
                && (new.place.slot == slot.place.slot || !others.contains(&new.info.serial))
        });
        let made = made.ok_or_else(|| {
            Error::BadAnswer("the token is initialised but cannot be found again".into())
        })?;
        let token = self.registry.one(client, &Uri::of_token(&made.info))?;
        self.logins.invalidate(&token);
        self.finish(client, request, query, (&token, true))
    }

    /// Adds what keeps the module from making a token, for who may know of it.
    fn with_obstacle(&self, error: Error, access: &dyn Access) -> Error {
        let obstacle = || self.module.needs().obstacle();
        match obstacle().filter(|_| access.is_told_all()) {
            Some(obstacle) => error.with_hint(&format!("; {obstacle}")),
            None => error,
        }
    }

    /// The user's PIN, by the security officer's; `is_known` as in [`Reset`].
    fn finish(
        &self,
        client: &Client<'_>,
        request: &InitToken,
        query: &KeyQuery<'_>,
        (token, is_known): (&Arc<Token>, bool),
    ) -> Result<TokenReady, Error> {
        query.access.check(&token.info(), None)?;
        let (so_pin, pin) = pins(request, query, &token.info())?;
        // The server's own PIN stays the server's.
        let is_the_servers = query.own_pin.is_none();
        let reset = Reset {
            so: &so_pin,
            new: &pin,
            is_known,
        };
        self.reset_pin(client, token, reset, |_| is_the_servers)?;
        Ok(TokenReady::new(token.name(), true))
    }
}

/// Blanks and NULs at the end are what a token fills its label up with: it would show another one.
fn check_label(label: &str) -> Result<(), Error> {
    let is_kept = !label.ends_with(' ') && !label.chars().any(char::is_control);
    match is_kept && (1..=LONGEST_LABEL).contains(&label.len()) {
        true => Ok(()),
        false => Err(Error::BadRequest(format!(
            "the label of a token has 1 to {LONGEST_LABEL} bytes, no control characters and no blank at its end"
        ))),
    }
}

/// Whether a token that may be made lies in the server's scope. One that has no label yet cannot be held to one.
fn check_scope(uri: &Uri, query: &KeyQuery<'_>) -> Result<(), Error> {
    let scope = &query.settings.scope;
    let mut differing = uri.apply_scope(scope).replaced;
    differing.retain(|name| {
        name.starts_with("slot-")
            || name.starts_with("library-")
            || matches!(name.as_str(), "manufacturer" | "model")
    });
    match differing.is_empty() {
        true => Ok(()),
        false => Err(query.out_of_scope(&p11_uri::redact(&query.name), &differing)),
    }
}

/// The security officer's PIN and the user's: a default that nobody has set is none for a new token, nor is the server's
/// outside of its scope.
fn pins(request: &InitToken, query: &KeyQuery<'_>, token: &TokenInfo) -> Result<(Pin, Pin), Error> {
    let settings = &query.settings;
    let may_have_servers = !settings.pin_is_default && settings.scope.matches_token(token);
    let server = settings.pin.as_ref().filter(|_| may_have_servers);
    let own = query.own_pin.as_deref();
    let user = own.or(server).ok_or_else(|| Error::PinRequired {
        token: request.label.clone(),
        place: settings.wording.pin,
    })?;
    if request.so_pin.is_none() && query.access.is_restricted() {
        return Err(Error::BadRequest(
            "while a policy is in force, a new token needs its security officer's PIN, so_pin"
                .into(),
        ));
    }
    Ok((
        request.so_pin.as_ref().unwrap_or(user).clone(),
        user.clone(),
    ))
}

fn none_free(query: &KeyQuery<'_>, uri: &Uri) -> Error {
    Error::TokenNotFound(format!(
        "No token matching the given URI was found: no slot that {} matches has a token that could be initialised; list the \
         tokens to see which slot is free now{}",
        p11_uri::redact(&query.name),
        hint(uri)
    ))
}

/// Whether the URI was one of a slot, whose token had no label yet, and none of a token.
fn names_free_slot(uri: &Uri) -> bool {
    uri.slot_id().is_some() && uri.token().is_none() && uri.serial().is_none()
}

/// Whether keys on the token can be used as it is.
fn is_usable(flags: &TokenFlags) -> bool {
    flags.user_pin_initialized() || !flags.login_required()
}

fn names(uris: impl Iterator<Item = Uri>) -> String {
    list(uris.map(|uri| uri.to_string()))
}
