//! What the log and the client are told of a key that was chosen among several.

use tracing::warn;

use super::object::Object;
use super::search::{Search, unusable, uri};
use super::view::View;
use crate::engine::token::Token;
use crate::error::list;

impl Search<'_> {
    /// What makes the choice a surprise: keys that cannot be used, and others that match where nobody said which. The
    /// log has it when the key is found first; the client is told of the others that it may use.
    pub(super) fn note_on_choice(&self, views: &[View]) -> Option<String> {
        if self.expected.is_some() {
            return None;
        }
        let views = self.latest(views);
        if self.preferred.is_none() {
            self.warn_of(&views);
        }
        let may_use = |token: &Token, key: &Object| {
            let checked = self.client.access.check(&token.info(), Some(&key.info()));
            checked.is_ok()
        };
        let usable = views.iter().map(|view| {
            let keys = view.keys().into_iter();
            keys.filter(|key| may_use(view.token(), key)).count()
        });
        let count: usize = usable.sum();
        (count > 1).then(|| {
            format!(
                "{count} keys match {}, and this one was taken; name one by its object or id",
                self.uri.shown()
            )
        })
    }

    fn warn_of(&self, views: &[View]) {
        let unusable_keys = views.iter().flat_map(|view| {
            let keys = view.unusable.iter();
            keys.map(|key| unusable(view.token(), key))
        });
        let unusable_keys: Vec<_> = unusable_keys.collect();
        if !unusable_keys.is_empty() {
            warn!("{}", list(&unusable_keys));
        }
        let keys = views.iter().flat_map(|view| {
            let keys = view.keys().into_iter();
            keys.map(|key| uri(view.token(), key).to_string())
        });
        let all: Vec<_> = keys.collect();
        if let [_, _, ..] = all.as_slice() {
            warn!(
                "several keys match {}, and the first is taken: {}",
                self.uri.shown(),
                list(&all)
            );
        }
    }
}
