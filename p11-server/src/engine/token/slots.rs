//! The tokens in the slots of the module: in a stable order, slots that fail left out.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use cryptoki::context::Pkcs11;
use cryptoki::slot::{self, Slot};
use p11_uri::{TokenInfo, Uri};
use tracing::warn;

use super::id::TokenId;
use crate::engine::module::Call;
use crate::engine::token::Token;
use crate::error::Error;
use crate::lock::lock;
use crate::service::Access;

/// The tokens that were ever seen, so that one that comes back is known again.
#[derive(Default)]
pub(crate) struct Tokens {
    known: Mutex<HashMap<TokenId, Arc<Token>>>,
    /// Slots that were warned about: SoftHSM always has one, and once is enough.
    uninitialized: Mutex<HashSet<u64>>,
}

impl Tokens {
    /// Lists the slots: the initialised tokens that answer, ordered by label, manufacturer, model
    /// and serial number, whatever their slots are called today.
    ///
    /// # Errors
    /// What `C_GetSlotList` said. A slot that fails is skipped with a warning.
    pub fn scan(&self, call: &Call<'_>) -> Result<Vec<Arc<Token>>, Error> {
        // As they are before the slots are listed: what comes back meanwhile is not taken for gone.
        let before: Vec<_> = self.known().into_iter().map(|t| (t.era(call), t)).collect();
        let mut found = Vec::new();
        for (slot, info, flags) in list(call.pkcs11())? {
            if !flags.token_initialized() {
                if !lock(&self.uninitialized).insert(slot.id()) {
                    continue;
                }
                warn!(slot = slot.id(), "skipping a token that is not initialised");
                continue;
            }
            found.push((TokenId::of(&flags), slot, info, flags));
        }
        found.sort_unstable_by(|(a, slot_a, ..), (b, slot_b, ..)| {
            (a, slot_a.id()).cmp(&(b, slot_b.id()))
        });

        let mut known = lock(&self.known);
        let mut tokens: Vec<Arc<Token>> = Vec::with_capacity(found.len());
        for (mut id, slot, info, flags) in found {
            while tokens.iter().any(|token| *token.id() == id) {
                id.ordinal += 1;
            }
            let token = match known.get(&id) {
                Some(token) => {
                    token.set_present(call, slot, info, flags);
                    token.clone()
                }
                None => {
                    let token = Arc::new(Token::new(id.clone(), slot, info, flags));
                    known.insert(id, token.clone());
                    token
                }
            };
            tokens.push(token);
        }
        drop(known);
        for token in &tokens {
            token.verify(call);
        }
        for (era, token) in before {
            if !tokens.iter().any(|found| found.id() == token.id()) {
                token.set_absent(call, era);
            }
        }
        Ok(tokens)
    }

    /// The one token that a URI means. Errors name only those that the caller may know of.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`], [`Error::AmbiguousToken`], and what `C_GetSlotList` said.
    pub fn one(
        &self,
        call: &Call<'_>,
        uri: &Uri,
        access: &dyn Access,
    ) -> Result<Arc<Token>, Error> {
        let tokens = self.scan(call)?;
        let matching = tokens
            .iter()
            .filter(|token| uri.matches_token(&token.info()));
        let looked_for = uri.without_query();
        match matching.collect::<Vec<_>>().as_slice() {
            [token] => Ok(Arc::clone(token)),
            [] => {
                let there = match known(tokens.iter().map(AsRef::as_ref), access).as_slice() {
                    [] => "there is none".into(),
                    known => format!("there are: {}", known.join(", ")),
                };
                Err(Error::TokenNotFound(format!(
                    "No token matching the given URI was found: none matches {looked_for}; {there}"
                )))
            }
            several => Err(Error::AmbiguousToken(format!(
                "Found multiple initialized tokens that match {looked_for}; add token=… or serial=… \
                 to name one{}",
                one_of(&known(several.iter().map(|token| token.as_ref()), access))
            ))),
        }
    }

    /// The tokens that were ever seen.
    pub fn known(&self) -> Vec<Arc<Token>> {
        lock(&self.known).values().cloned().collect()
    }
}

/// The names of those tokens that a caller may be told of: an error is no listing of what is hidden.
pub(crate) fn known<'t>(
    tokens: impl Iterator<Item = &'t Token>,
    access: &dyn Access,
) -> Vec<&'t str> {
    let known = tokens.filter(|token| access.check(&token.info(), None).is_ok());
    known.map(Token::name).collect()
}

/// ` of: ` and these names, after the advice to name one.
pub(crate) fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        names => format!(" of: {}", names.join(", ")),
    }
}

/// Every slot with a token that answers, in the order of the module.
pub(crate) fn list(module: &Pkcs11) -> Result<Vec<(Slot, TokenInfo, slot::TokenInfo)>, Error> {
    let library = module.get_library_info()?;
    let mut found = Vec::new();
    for slot in module.get_slots_with_token()? {
        let slot_info = module.get_slot_info(slot);
        let token_info = module.get_token_info(slot);
        match (slot_info, token_info) {
            (Ok(slot_info), Ok(flags)) => {
                let version = library.library_version();
                let mut info = TokenInfo::default();
                info.label = flags.label().into();
                info.manufacturer = flags.manufacturer_id().into();
                info.serial = flags.serial_number().into();
                info.model = flags.model().into();
                info.slot_id = slot.id();
                info.slot_description = slot_info.slot_description().into();
                info.slot_manufacturer = slot_info.manufacturer_id().into();
                info.library_manufacturer = library.manufacturer_id().into();
                info.library_description = library.library_description().into();
                info.library_version = (version.major(), version.minor());
                found.push((slot, info, flags));
            }
            (Err(error), _) | (_, Err(error)) => {
                let error = Error::from(error);
                warn!(slot = slot.id(), "skipping a slot that fails: {error}");
            }
        }
    }
    Ok(found)
}
