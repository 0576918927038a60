//! Tokens are made ready for use, and their PINs changed. Never harms a token that is in use.

use p11_proto::message::{ChangePin, InitToken, PinChanged, TokenReady};
use p11_proto::{Pin, UriText};
use p11_uri::{TokenFacts, Uri};
use tracing::{info, warn};

use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::guard::Pins;
use super::inventory::in_scope_before_it_has_a_label;
use super::login;
use super::module::Call;
use super::session::Token;
use super::{Asked, DEADLINE, Engine, LONG_DEADLINE, lock, out_of_scope, slots};
use crate::error::Error;
use crate::service::Access;

/// `CK_TOKEN_INFO.label` has 32 bytes (PKCS#11 section 3.2).
const LONGEST_LABEL: usize = 32;

type Found = (Slot, TokenFacts, TokenInfo);

impl Engine {
    pub(super) fn make_ready(
        &self,
        request: &InitToken,
        access: &dyn Access,
    ) -> Result<TokenReady, Error> {
        if request.label.is_empty() || request.label.len() > LONGEST_LABEL {
            return Err(Error::BadRequest(format!(
                "the label of a token has 1 to {LONGEST_LABEL} bytes"
            )));
        }
        let uri = any(&request.uri);
        let asked = Asked::new(uri, request.pin.as_ref(), None, false, access, self)?;
        let _alone = lock(&self.making_ready);
        self.once(LONG_DEADLINE, |call, _| {
            self.make_ready_now(call, request, &asked)
        })
    }

    fn make_ready_now(
        &self,
        call: &Call<'_>,
        request: &InitToken,
        asked: &Asked<'_>,
    ) -> Result<TokenReady, Error> {
        let scope = &asked.settings.scope;
        let uri = Uri::parse(asked.uri)?;
        // A token that has no label yet cannot be held to one.
        let mut differing = uri.scoped_by(scope).replaced;
        differing.retain(|name| {
            name.starts_with("slot-")
                || name.starts_with("library-")
                || matches!(name.as_str(), "manufacturer" | "model")
        });
        if !differing.is_empty() {
            return Err(out_of_scope(&asked.name, scope, &differing));
        }
        let in_scope = |(_, facts, _): &Found| {
            in_scope_before_it_has_a_label(scope, facts) && uri.matches_token(facts)
        };
        let all = slots::list(call.pkcs11())?.into_iter().filter(in_scope);
        let (made, free): (Vec<Found>, Vec<Found>) =
            all.partition(|(.., info)| info.token_initialized());

        let mut labelled: Vec<_> = made
            .iter()
            .filter(|(_, facts, _)| facts.label == request.label)
            .collect();
        labelled.sort_by_key(|(.., info)| !is_usable(info));
        match labelled.first() {
            Some((_, facts, info)) if is_usable(info) => return self.as_it_is(asked, facts),
            // An initialisation that was cut short is brought to its end.
            Some((_, facts, _)) => return self.finish(call, request, asked, &Uri::of_token(facts)),
            None => {}
        }
        let is_ours = |(_, facts, info): &&Found| is_usable(info) && scope.matches_token(facts);
        let usable: Vec<_> = made.iter().filter(is_ours).collect();
        match (free.as_slice(), usable.as_slice()) {
            ([slot], _) => self.initialize(call, request, asked, slot),
            ([], [(_, facts, _)]) => self.as_it_is(asked, facts),
            ([], []) => Err(Error::TokenNotFound(format!(
                "No token matching the given URI was found: no slot that {} matches has a token \
                 that could be initialised",
                asked.name
            ))),
            ([], several) => Err(Error::AmbiguousToken(format!(
                "Found multiple initialized tokens, none of them labelled {:?}, and no slot that is \
                 free: {}",
                request.label,
                names(several.iter().map(|(_, facts, _)| Uri::of_token(facts)))
            ))),
            (several, _) => Err(Error::AmbiguousToken(format!(
                "several tokens could be initialised; name one by its slot-id: {}",
                names(several.iter().map(|(_, facts, _)| Uri::of_slot(facts)))
            ))),
        }
    }

    fn as_it_is(&self, asked: &Asked<'_>, facts: &TokenFacts) -> Result<TokenReady, Error> {
        asked.access.check(facts, None)?;
        Ok(TokenReady {
            uri: Uri::of_token(facts).to_string(),
            created: false,
        })
    }

    /// `C_InitToken`, then the user's PIN by the security officer.
    fn initialize(
        &self,
        call: &Call<'_>,
        request: &InitToken,
        asked: &Asked<'_>,
        (slot, facts, info): &Found,
    ) -> Result<TokenReady, Error> {
        asked.access.check(facts, None)?;
        refuse_pin_pad(info, &Uri::of_slot(facts))?;
        let (so_pin, _) = pins(request, asked)?;
        let others = serials(call)?;
        let auth = AuthPin::new(so_pin.expose().into());
        call.pkcs11().init_token(*slot, &auth, &request.label)?;
        info!(
            "initialised the token in {} with label {:?}",
            Uri::of_slot(facts),
            request.label
        );
        // Its serial number is new, and perhaps its slot; others may have its label.
        let made = slots::list(call.pkcs11())?.into_iter();
        let mut made = made.filter(|(at, new, info)| {
            info.token_initialized()
                && new.label == request.label
                && (at == slot || !others.contains(&new.serial))
        });
        let (_, facts, _) = made.next().ok_or_else(|| {
            Error::Internal("the token is initialised but cannot be found again".into())
        })?;
        self.finish(call, request, asked, &Uri::of_token(&facts))
    }

    fn finish(
        &self,
        call: &Call<'_>,
        request: &InitToken,
        asked: &Asked<'_>,
        uri: &Uri,
    ) -> Result<TokenReady, Error> {
        let token = self.one_token(call, uri)?;
        asked.access.check(&token.facts(), None)?;
        let (so_pin, pin) = pins(request, asked)?;
        self.reset(call, &token, &so_pin, &pin)?;
        Ok(TokenReady {
            uri: token.name().into(),
            created: true,
        })
    }

    pub(super) fn change(
        &self,
        request: &ChangePin,
        access: &dyn Access,
    ) -> Result<PinChanged, Error> {
        let uri = any(&request.uri);
        let asked = Asked::new(uri, request.old_pin.as_ref(), None, false, access, self)?;
        self.once(DEADLINE, |call, _| self.change_now(call, request, &asked))
    }

    fn change_now(
        &self,
        call: &Call<'_>,
        request: &ChangePin,
        asked: &Asked<'_>,
    ) -> Result<PinChanged, Error> {
        let token = self.one_token(call, &asked.in_scope()?)?;
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

    /// By the user. The login goes on.
    fn replace(
        &self,
        call: &Call<'_>,
        token: &Token,
        change: (&Pin, &Pin),
        pins: Pins<'_>,
    ) -> Result<(), Error> {
        // Before the sessions, as for every login; until we are done nobody logs in with the old PIN.
        let mut login = lock(&token.login);
        let taken = token.take(call)?;
        let session = taken.open()?;
        let outcome = self
            .guard
            .change_pin(call, token, &mut login, &session, change, pins.server);
        let _ = session.close();
        outcome
    }

    /// By the security officer, who wants no other session to be open.
    fn reset(&self, call: &Call<'_>, token: &Token, so: &Pin, new: &Pin) -> Result<(), Error> {
        {
            let login = lock(&token.login);
            // Before anybody is disturbed for a PIN that cannot be tried.
            self.guard.admit_officer(call, token, so)?;
            let taken = token.take(call)?;
            taken.close_all();
            let session = taken.open()?;
            let outcome = self
                .guard
                .reset_pin(call, token, &login, &session, (so, new));
            let _ = session.close();
            outcome?;
        }
        // The change is made, whatever becomes of the login that everybody had before.
        let own = Some(new);
        if let Err(error) = self.guard.log_in(call, token, Pins { own, server: None }) {
            warn!("not logged in with the new PIN yet: {error}");
        }
        Ok(())
    }
}

/// The serial numbers of the tokens that are initialised.
fn serials(call: &Call<'_>) -> Result<Vec<String>, Error> {
    let all = slots::list(call.pkcs11())?.into_iter();
    let initialized = all.filter(|(.., info)| info.token_initialized());
    Ok(initialized.map(|(_, facts, _)| facts.serial).collect())
}

/// The URI of a request that may leave it away.
fn any(uri: &Option<UriText>) -> &str {
    uri.as_deref().unwrap_or("pkcs11:")
}

/// The security officer's PIN and the user's.
fn pins(request: &InitToken, asked: &Asked<'_>) -> Result<(Pin, Pin), Error> {
    let pins = asked.pins();
    let user = pins.own.or(pins.server).ok_or_else(|| Error::PinRequired {
        token: request.label.clone(),
    })?;
    Ok((
        request.so_pin.as_ref().unwrap_or(user).clone(),
        user.clone(),
    ))
}

/// Whether keys on the token can be used as it is.
fn is_usable(info: &TokenInfo) -> bool {
    info.user_pin_initialized() || !info.login_required()
}

fn refuse_pin_pad(info: &TokenInfo, uri: &Uri) -> Result<(), Error> {
    match info.protected_authentication_path() {
        true => Err(Error::NotSupported(format!(
            "the PIN of {uri} is typed at the token itself; set it with the token's own tool"
        ))),
        false => Ok(()),
    }
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

fn names(uris: impl Iterator<Item = Uri>) -> String {
    uris.map(|uri| uri.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
