//! The error for a key that was not found: where it was looked for, and what is there instead. The client
//! is told only of tokens and keys that it may know of.

use std::cmp::Reverse;
use std::sync::Arc;

use p11_uri::Uri;

use super::object::Object;
use super::search::{Search, Skipped, unusable, uri};
use super::view::{Unusable, View};
use crate::engine::token::Token;
use crate::engine::token::lookup;
use crate::error::{Error, list};

impl Search<'_> {
    /// The URI matches none of the tokens.
    pub(super) fn no_token(&self, tokens: &[Arc<Token>]) -> Error {
        let looked_for = self.uri.shown();
        let there = match self.known(tokens.iter()).as_slice() {
            [] => "there is none".into(),
            known => format!("there are {}", list(known)),
        };
        Error::TokenNotFound(format!(
            "Didn't find a slot to use: no initialised token matches {looked_for}{}; {there}",
            lookup::hint(self.uri)
        ))
    }

    /// The tokens that the URI matches hold no such key. What is said of them is what was read of them last,
    /// perhaps after a login.
    pub(super) fn not_found(&self, views: &[View], skipped: &[Skipped<'_>]) -> Error {
        let looked_for = self.uri.shown();
        let all = self.latest(views);
        // The URI leads to keys, but not to the one of the client's certificate.
        if let Some(wanted) = self.expected {
            // One that cannot be read at this moment may be the one.
            let mut unusable = all.iter().flat_map(|view| &view.unusable);
            let all_told = unusable.all(|key| key.is_told);
            if self.opened && all_told && all.iter().any(|view| !view.keys().is_empty()) {
                return Error::KeyChanged {
                    uri: looked_for.to_string(),
                    opened: wanted,
                };
            }
            let others = self.known_keys(&all);
            if !others.is_empty() {
                return self.no_key(format!(
                    "Failed to find a signing key: none of those that match {looked_for} has the \
                     public key {wanted}; there are {}",
                    list(&others)
                ));
            }
        }
        let searched = match self.known(all.iter().map(|view| &view.contents.token)) {
            none if none.is_empty() => "no token that you may use".into(),
            known => list(known),
        };
        let hint = lookup::hint(self.uri);
        let mut message = format!(
            "Failed to find a signing key: none matches {looked_for}{hint}; searched {searched}"
        );
        let any_key = Search {
            uri: &Uri::default(),
            ..*self
        };
        let there = self.known_keys(&any_key.latest(views));
        match there.as_slice() {
            [] => message.push_str(", where no key that can sign is in sight"),
            there => message.push_str(&format!(", where there are {}", list(there))),
        }
        let unusable_keys = all.iter().flat_map(|view| {
            let known = |key: &&Unusable| self.may_know(view.token(), &key.object);
            let known = view.unusable.iter().filter(known);
            known.map(|key| unusable(view.token(), key))
        });
        let may_know = |token: &Token| self.client.access.check(&token.info(), None).is_ok();
        let skipped = skipped.iter().filter(|skipped| may_know(skipped.token));
        let skipped = skipped.map(|s| format!("{}: {}", s.token.name(), s.error));
        for (what, each) in [
            ("", unusable_keys.collect::<Vec<_>>()),
            ("not searched ", skipped.collect()),
        ] {
            if !each.is_empty() {
                message.push_str(&format!("; {what}{}", list(&each)));
            }
        }
        self.no_key(message)
    }

    fn no_key(&self, why: String) -> Error {
        let names_token = self.uri.token().is_some() || self.uri.serial().is_some();
        Error::KeyNotFound { why, names_token }
    }

    /// Several tokens could be hiding the key, and none is shown a PIN for that.
    pub(super) fn hidden(&self, views: &[View]) -> Error {
        let hiding = views.iter().filter(|view| view.hidden);
        let known = self.known(hiding.map(|view| &view.contents.token));
        Error::KeyHidden(format!(
            "Found multiple initialized tokens that could hold the key, and each wants a login, so none \
             was tried; add token=… or serial=… to the URI to name one{}",
            lookup::one_of(&known)
        ))
    }

    fn known<'t>(&self, tokens: impl Iterator<Item = &'t Arc<Token>>) -> Vec<&'t str> {
        lookup::names(self.uri, tokens, self.client.access)
    }

    fn may_know(&self, token: &Token, key: &Object) -> bool {
        self.client
            .access
            .check(&token.info(), Some(&key.info()))
            .is_ok()
    }

    fn known_keys(&self, all: &[View]) -> Vec<String> {
        let known = all.iter().flat_map(|view| {
            let in_sight = view.in_sight().into_iter();
            let known = in_sight.filter(|key| self.may_know(view.token(), key));
            known.map(|key| (view.token(), key))
        });
        let mut known: Vec<_> = known.collect();
        known.sort_by_cached_key(|(token, key)| {
            let (token, key) = (token.info(), key.info());
            Reverse(self.uri.nearness_to_token(&token) + self.uri.nearness_to_object(&key))
        });
        known
            .iter()
            .map(|(token, key)| uri(token, key).to_string())
            .collect()
    }
}
