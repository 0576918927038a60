//! A token by its URI, among those that the slots hold, and what is said where there is none.

use std::cmp::Reverse;
use std::sync::Arc;

use p11_uri::Uri;

use super::{SlotToken, Token};
use crate::engine::module::Needs;
use crate::error::{Error, HIDDEN_TROUBLE, list};
use crate::service::Access;

/// What the slots hold.
#[derive(Default)]
pub(crate) struct Slots {
    /// Every slot with a token that answers, in the order of the module.
    pub all: Vec<SlotToken>,
    /// The initialised tokens, ordered by label, manufacturer, model and serial number, whatever their slots
    /// are called today.
    pub tokens: Vec<Arc<Token>>,
    /// Slots of which nothing is known, since a call does not return; each with what is to be said of it.
    pub(super) hanging: Vec<String>,
    /// Slots that fail, likewise.
    pub(super) failing: Vec<String>,
    /// The slots, where none has a token.
    pub(super) empty: Vec<String>,
    /// What the module needs beside it.
    pub(super) needs: Needs,
    /// What of that is certainly wrong, where no token can be used.
    pub(super) obstacle: Option<String>,
}

impl Slots {
    /// The one token that a URI means, of those that the caller may use. Errors name only those that it may know of.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`], [`Error::NotAllowed`], [`Error::AmbiguousToken`], [`Error::Timeout`].
    pub fn one(&self, uri: &Uri, access: &dyn Access) -> Result<Arc<Token>, Error> {
        let usable = usable(&self.tokens, uri, access)?;
        let looked_for = uri.shown();
        match usable.as_slice() {
            [token] => Ok(token.clone()),
            [] => {
                let there = match names(uri, self.tokens.iter(), access).as_slice() {
                    [] => "there is none".into(),
                    known => format!("there are: {}", list(known)),
                };
                self.found_all(access)?;
                let hint = hint(uri);
                let missing = Error::TokenNotFound(format!(
                    "No token matching the given URI was found: none matches {looked_for}{hint}; {there}"
                ));
                Err(self.explain(missing, access))
            }
            several => Err(Error::AmbiguousToken(format!(
                "Found multiple initialized tokens that match {looked_for}; add token=…, serial=… or \
                 slot-id=… to name one{}",
                one_of(&names(uri, several.iter(), access))
            ))),
        }
    }

    /// Whether there is no token that could be used, now or when its slot answers.
    pub(super) fn has_no_token(&self) -> bool {
        self.tokens.is_empty() && self.failing.is_empty() && self.hanging.is_empty()
    }

    /// Nothing can be said to be missing while a slot hangs of which nothing is known.
    ///
    /// # Errors
    /// [`Error::Timeout`]
    pub fn found_all(&self, access: &dyn Access) -> Result<(), Error> {
        match self.hanging.first() {
            None => Ok(()),
            Some(_) if !access.is_told_all() => Err(Error::Timeout(format!(
                "nobody knows which token is there: {HIDDEN_TROUBLE}"
            ))),
            Some(first) => Err(Error::Timeout(format!(
                "nobody knows which token is there: {first}"
            ))),
        }
    }

    /// Says of a token that was not found what there is instead: which slots fail, and where no token can be used at
    /// all, why.
    pub fn explain(&self, error: Error, access: &dyn Access) -> Error {
        match &error {
            _ if !access.is_told_all() => self.explain_without_details(error, access),
            Error::TokenNotFound(_) if self.tokens.is_empty() => {
                error.with_hint(&format!(": {}", self.what_there_is(access)))
            }
            // It may be in one of these.
            Error::TokenNotFound(_)
            | Error::KeyNotFound {
                names_token: false, ..
            } if !self.failing.is_empty() => error.with_hint(&format!("; {}", list(&self.failing))),
            Error::TokenNotFound(_) => {
                let obstacle = self.needs.obstacle();
                error.with_hint(&obstacle.map_or_else(String::new, |what| format!("; {what}")))
            }
            _ => error,
        }
    }

    /// The same for who may not know of all tokens, nor of what the module needs.
    fn explain_without_details(&self, error: Error, access: &dyn Access) -> Error {
        let is_trouble = !self.failing.is_empty() || self.trouble().is_some();
        match &error {
            Error::TokenNotFound(_)
            | Error::KeyNotFound {
                names_token: false, ..
            } if is_trouble => error.with_hint(&format!("; {HIDDEN_TROUBLE}")),
            Error::TokenNotFound(_) if self.tokens.is_empty() => match self.free(access).as_slice()
            {
                [] => error,
                free => error.with_hint(&format!(
                    ": what is there is not initialised: {}; InitToken makes a token",
                    list(free)
                )),
            },
            _ => error,
        }
    }

    /// The slots that a caller may know of; where there is no token, none of them is initialised.
    fn free(&self, access: &dyn Access) -> Vec<&str> {
        let known = |slot: &&SlotToken| access.check(&slot.info, None).is_ok();
        let free = self.all.iter().filter(known);
        free.map(|slot| &*slot.place.name).collect()
    }

    fn what_there_is(&self, access: &dyn Access) -> String {
        let free = self.free(access);
        let mut there = Vec::new();
        if !self.failing.is_empty() {
            there.push(list(&self.failing));
        }
        if !free.is_empty() {
            there.push(format!("what is there is not initialised: {}", list(&free)));
        }
        if there.is_empty() {
            return self.nothing();
        }
        match &self.obstacle {
            Some(obstacle) => there.push(obstacle.clone()),
            None if !free.is_empty() => there.push(self.needs.without_token()),
            None => {}
        }
        there.join("; ")
    }

    /// What is wrong where no token can be used: a blank one alone is nothing wrong.
    pub(super) fn trouble(&self) -> Option<String> {
        let mut slots = self.all.iter();
        if slots.any(|slot| slot.flags.token_initialized()) || !self.hanging.is_empty() {
            return None;
        }
        if self.all.is_empty() && self.failing.is_empty() {
            return Some(self.nothing());
        }
        let failing = (!self.failing.is_empty()).then(|| list(&self.failing));
        let there: Vec<_> = failing.into_iter().chain(self.obstacle.clone()).collect();
        (!there.is_empty()).then(|| there.join("; "))
    }

    fn nothing(&self) -> String {
        match self.empty.as_slice() {
            [] => format!(
                "the PKCS#11 module shows no slot with a token; {}",
                (self.obstacle.clone()).unwrap_or_else(|| self.needs.without_slot())
            ),
            empty => format!(
                "none of these slots, such as card readers, holds a token: {}; put in the right one",
                list(empty)
            ),
        }
    }
}

/// The tokens that a URI matches and that a client may use.
///
/// # Errors
/// Why it may not use the first, where it may use none of those that match.
pub(crate) fn usable(
    tokens: &[Arc<Token>],
    uri: &Uri,
    access: &dyn Access,
) -> Result<Vec<Arc<Token>>, Error> {
    let matching = tokens
        .iter()
        .filter(|token| uri.matches_token(&token.info()));
    let mut usable: Vec<_> = matching.cloned().collect();
    let first = usable
        .first()
        .map(|token| access.check(&token.info(), None));
    usable.retain(|token| access.check(&token.info(), None).is_ok());
    match first {
        Some(Err(error)) if usable.is_empty() => Err(error),
        _ => Ok(usable),
    }
}

/// The names of those tokens that a caller may be told of, those first that are the nearest to the URI: an error is no
/// listing of what is hidden.
pub(crate) fn names<'t>(
    uri: &Uri,
    tokens: impl Iterator<Item = &'t Arc<Token>>,
    access: &dyn Access,
) -> Vec<&'t str> {
    let known = tokens.filter(|token| access.check(&token.info(), None).is_ok());
    let mut known: Vec<_> = known.collect();
    known.sort_by_cached_key(|token| Reverse(uri.nearness_to_token(&token.info())));
    known.iter().map(|token| token.name()).collect()
}

/// ` of: ` and these names, after the advice to name one.
pub(crate) fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        names => format!(" of: {}", list(names)),
    }
}

/// What to write instead, where a URI can match nothing; empty where that is not so.
pub(crate) fn hint(uri: &Uri) -> String {
    uri.hint()
        .map_or_else(String::new, |hint| format!("; {hint}"))
}
