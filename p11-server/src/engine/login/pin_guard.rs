//! Which PINs a token has refused, so that it is never sent one of those again, and which PIN was changed
//! through us. In memory; the refused ones as keyed digests.

use std::borrow::Cow;
use std::collections::HashMap;

use p11_proto::Pin;
use sha2::{Digest, Sha256};

use crate::engine::lock::{Mutex, Rank};
use crate::engine::token::PinDigest;
use crate::engine::token::Token;
use crate::engine::token::id::TokenId;
use crate::error::Error;

/// Refused logins of a kind that a token may see from us until one succeeds.
const MOST_REFUSED: usize = 2;

/// Stands before every `C_Login`.
pub(crate) struct Guard {
    key: [u8; 32],
    refused: Mutex<HashMap<(TokenId, Role), Refusals>>,
    /// What took the place of the server's PIN on tokens whose PIN was changed through us.
    replaced: Mutex<HashMap<TokenId, Pin>>,
}

#[derive(Default)]
struct Refusals {
    pins: Vec<PinDigest>,
    /// How many there were since a login succeeded.
    in_a_row: usize,
}

/// The PINs that a request could use; the first that is there is the one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pins<'a> {
    /// The request's own.
    pub own: Option<&'a Pin>,
    /// The server's. Where it was changed through us, the new one takes its place.
    pub server: Option<&'a Pin>,
}

/// Whose PIN it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// The normal user's.
    User,
    /// The security officer's.
    So,
}

impl Guard {
    /// A guard that has seen nothing yet.
    ///
    /// # Errors
    /// [`Error::Internal`] where the system gives no random bytes.
    pub fn new() -> Result<Guard, Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)
            .map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
        Ok(Guard {
            key,
            refused: Mutex::new(Rank::Pins, HashMap::new()),
            replaced: Mutex::new(Rank::Replaced, HashMap::new()),
        })
    }

    /// The operator has changed something: every PIN may be tried again.
    pub fn forget_all(&self) {
        self.refused.lock().clear();
    }

    /// The operator has configured another PIN: it is the one for every token again.
    pub fn forget_replaced(&self) {
        self.replaced.lock().clear();
    }

    /// The PIN for a token, if there is one.
    pub fn choose<'p>(&self, token: &Token, pins: Pins<'p>) -> Option<Cow<'p, Pin>> {
        let replaced = || self.replaced.lock().get(token.id()).cloned();
        let own = pins.own.map(Cow::Borrowed);
        own.or_else(|| replaced().map(Cow::Owned))
            .or_else(|| pins.server.map(Cow::Borrowed))
    }

    /// The user's PIN of this token was changed through us: the token takes the new one, and needs not
    /// be asked whether it refuses the old one. Where that was the server's, the new one is from now on,
    /// for this token.
    pub fn changed(&self, token: &Token, old: Option<&Pin>, new: &Pin, was_the_servers: bool) {
        let digest = |pin| self.digest(token.id(), Role::User, pin);
        token.set_accepted(None);
        {
            let mut refused = self.refused.lock();
            let refusals = refused.entry((token.id().clone(), Role::User)).or_default();
            refusals.pins.extend(old.map(digest));
            refusals.pins.retain(|refused| *refused != digest(new));
            refusals.in_a_row = 0;
        }
        if was_the_servers {
            self.replaced.lock().insert(token.id().clone(), new.clone());
        }
    }

    /// Whether this PIN may be tried; `None` is whatever is typed at a PIN pad.
    ///
    /// # Errors
    /// [`Error::PinIncorrect`], [`Error::PinGuarded`]
    pub fn check(&self, token: &Token, role: Role, pin: Option<&Pin>) -> Result<(), Error> {
        let digest = pin.map(|pin| self.digest(token.id(), role, pin));
        let refused = self.refused.lock();
        let Some(refusals) = refused.get(&(token.id().clone(), role)) else {
            return Ok(());
        };
        if digest.is_some_and(|digest| refusals.pins.contains(&digest)) {
            return Err(Error::PinIncorrect(format!(
                "The specified PIN is incorrect: the token {} has refused it before, so it was not \
                 sent again; set the right one and send SIGHUP or restart",
                token.name()
            )));
        }
        if refusals.in_a_row >= MOST_REFUSED {
            return Err(Error::PinGuarded(format!(
                "the token {} has refused {MOST_REFUSED} PINs, so no other is tried; \
                 set the right one and send SIGHUP or restart",
                token.name()
            )));
        }
        Ok(())
    }

    /// The token has refused this PIN.
    pub fn remember_refusal(&self, token: &TokenId, role: Role, pin: Option<&Pin>) {
        let digest = pin.map(|pin| self.digest(token, role, pin));
        let mut refused = self.refused.lock();
        let refusals = refused.entry((token.clone(), role)).or_default();
        refusals.pins.extend(digest);
        refusals.in_a_row += 1;
    }

    /// A login of this kind has succeeded.
    pub fn remember_success(&self, token: &TokenId, role: Role) {
        if let Some(refusals) = self.refused.lock().get_mut(&(token.clone(), role)) {
            refusals.in_a_row = 0;
        }
    }

    /// What a PIN is remembered as.
    pub fn digest(&self, token: &TokenId, role: Role, pin: &Pin) -> PinDigest {
        Sha256::new()
            .chain_update(self.key)
            .chain_update(format!("{token:?}/{role:?}/"))
            .chain_update(pin.expose())
            .finalize()
            .into()
    }
}
