//! A label and PINs enter, a token of that label leaves, ready for use. One that is in use is never harmed.

use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use p11_proto::Pin;
use p11_proto::message::{InitToken, TokenReady};
use p11_uri::{TokenFacts, Uri};
use tracing::info;

use super::asked::{Asked, out_of_scope};
use super::inventory::in_scope_before_it_has_a_label;
use super::module::Call;
use super::pin::{any, refuse_pin_pad};
use super::{Engine, LONG_DEADLINE, lock, slots};
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
        let asked = self.asked(uri, request.pin.as_ref(), access)?;
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

        let labelled = || {
            made.iter()
                .filter(|(_, facts, _)| facts.label == request.label)
        };
        let usable = labelled().find(|(.., info)| is_usable(info));
        match usable.or_else(|| labelled().next()) {
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
        let token = self.tokens.one(call, uri, asked.access)?;
        asked.access.check(&token.facts(), None)?;
        let (so_pin, pin) = pins(request, asked)?;
        self.reset(call, &token, &so_pin, &pin)?;
        Ok(TokenReady {
            uri: token.name().into(),
            created: true,
        })
    }
}

/// The serial numbers of the tokens that are initialised.
fn serials(call: &Call<'_>) -> Result<Vec<String>, Error> {
    let all = slots::list(call.pkcs11())?.into_iter();
    let initialized = all.filter(|(.., info)| info.token_initialized());
    Ok(initialized.map(|(_, facts, _)| facts.serial).collect())
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

fn names(uris: impl Iterator<Item = Uri>) -> String {
    uris.map(|uri| uri.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
