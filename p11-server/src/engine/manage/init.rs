//! Initialising tokens. One that is in use is never harmed.

use cryptoki::slot::{self, Slot};
use cryptoki::types::AuthPin;
use p11_proto::Pin;
use p11_proto::message::{InitToken, TokenReady};
use p11_uri::{TokenInfo, Uri};
use tracing::info;

use super::list::in_scope_before_it_has_a_label;
use super::pin::refuse_pin_pad;
use crate::engine::core::{Core, any};
use crate::engine::module::Call;
use crate::engine::query::{KeyQuery, out_of_scope};
use crate::engine::token::slots;
use crate::error::Error;
use crate::lock::lock;
use crate::service::Access;

/// `CK_TOKEN_INFO.label` has 32 bytes (PKCS#11 section 3.2).
const LONGEST_LABEL: usize = 32;

type Found = (Slot, TokenInfo, slot::TokenInfo);

impl Core {
    /// Makes a token ready for use: initialised, with a label and a user's PIN.
    pub fn init_token(
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
        let query = self.query(uri, request.pin.as_ref(), access)?;
        let _alone = lock(&self.initializing);
        self.once(self.module.timeouts().long_request, |call, _| {
            self.init_token_now(call, request, &query)
        })
    }

    fn init_token_now(
        &self,
        call: &Call<'_>,
        request: &InitToken,
        query: &KeyQuery<'_>,
    ) -> Result<TokenReady, Error> {
        let scope = &query.settings.scope;
        let uri = Uri::parse(query.uri)?;
        // A token that has no label yet cannot be held to one.
        let mut differing = uri.apply_scope(scope).replaced;
        differing.retain(|name| {
            name.starts_with("slot-")
                || name.starts_with("library-")
                || matches!(name.as_str(), "manufacturer" | "model")
        });
        if !differing.is_empty() {
            return Err(out_of_scope(&query.name, scope, &differing));
        }
        let in_scope = |(_, info, _): &Found| {
            in_scope_before_it_has_a_label(scope, info) && uri.matches_token(info)
        };
        let all = slots::list(call.pkcs11())?.into_iter().filter(in_scope);
        let (made, free): (Vec<Found>, Vec<Found>) =
            all.partition(|(.., flags)| flags.token_initialized());

        let labelled = || {
            made.iter()
                .filter(|(_, info, _)| info.label == request.label)
        };
        let usable = labelled().find(|(.., flags)| is_usable(flags));
        match usable.or_else(|| labelled().next()) {
            Some((_, info, flags)) if is_usable(flags) => return self.as_it_is(query, info),
            // An initialisation that was cut short is brought to its end.
            Some((_, info, _)) => return self.finish(call, request, query, &Uri::of_token(info)),
            None => {}
        }
        let is_ours = |(_, info, flags): &&Found| is_usable(flags) && scope.matches_token(info);
        let usable: Vec<_> = made.iter().filter(is_ours).collect();
        match (free.as_slice(), usable.as_slice()) {
            ([slot], _) => self.initialize(call, request, query, slot),
            ([], [(_, info, _)]) => self.as_it_is(query, info),
            ([], []) => Err(Error::TokenNotFound(format!(
                "No token matching the given URI was found: no slot that {} matches has a token \
                 that could be initialised",
                query.name
            ))),
            ([], several) => Err(Error::AmbiguousToken(format!(
                "Found multiple initialized tokens, none of them labelled {:?}, and no slot that is \
                 free: {}",
                request.label,
                names(several.iter().map(|(_, info, _)| Uri::of_token(info)))
            ))),
            (several, _) => Err(Error::AmbiguousToken(format!(
                "several tokens could be initialised; name one by its slot-id: {}",
                names(several.iter().map(|(_, info, _)| Uri::of_slot(info)))
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
        call: &Call<'_>,
        request: &InitToken,
        query: &KeyQuery<'_>,
        (slot, info, flags): &Found,
    ) -> Result<TokenReady, Error> {
        query.access.check(info, None)?;
        refuse_pin_pad(flags, &Uri::of_slot(info))?;
        let (so_pin, _) = pins(request, query)?;
        let others = serials(call)?;
        let auth = AuthPin::new(so_pin.expose().into());
        call.pkcs11().init_token(*slot, &auth, &request.label)?;
        info!(
            "initialised the token in {} with label {:?}",
            Uri::of_slot(info),
            request.label
        );
        // Its serial number is new, and perhaps its slot; others may have its label.
        let made = slots::list(call.pkcs11())?.into_iter();
        let mut made = made.filter(|(at, new, flags)| {
            flags.token_initialized()
                && new.label == request.label
                && (at == slot || !others.contains(&new.serial))
        });
        let (_, info, _) = made.next().ok_or_else(|| {
            Error::Internal("the token is initialised but cannot be found again".into())
        })?;
        self.finish(call, request, query, &Uri::of_token(&info))
    }

    fn finish(
        &self,
        call: &Call<'_>,
        request: &InitToken,
        query: &KeyQuery<'_>,
        uri: &Uri,
    ) -> Result<TokenReady, Error> {
        let token = self.tokens.one(call, uri, query.access)?;
        query.access.check(&token.info(), None)?;
        let (so_pin, pin) = pins(request, query)?;
        self.reset(call, &token, &so_pin, &pin)?;
        Ok(TokenReady::new(token.name(), true))
    }
}

/// The serial numbers of the tokens that are initialised.
fn serials(call: &Call<'_>) -> Result<Vec<String>, Error> {
    let all = slots::list(call.pkcs11())?.into_iter();
    let initialized = all.filter(|(.., flags)| flags.token_initialized());
    Ok(initialized.map(|(_, info, _)| info.serial).collect())
}

/// The security officer's PIN and the user's.
fn pins(request: &InitToken, query: &KeyQuery<'_>) -> Result<(Pin, Pin), Error> {
    let pins = query.pins();
    let user = pins.own.or(pins.server).ok_or_else(|| Error::PinRequired {
        token: request.label.clone(),
    })?;
    Ok((
        request.so_pin.as_ref().unwrap_or(user).clone(),
        user.clone(),
    ))
}

/// Whether keys on the token can be used as it is.
fn is_usable(flags: &slot::TokenInfo) -> bool {
    flags.user_pin_initialized() || !flags.login_required()
}

fn names(uris: impl Iterator<Item = Uri>) -> String {
    uris.map(|uri| uri.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
