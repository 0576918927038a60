//! How the module and its tokens fare, as `Status` tells. Calls no token.

use p11_proto::message::StatusDetails;

use super::core::Core;
use crate::error::list;

/// Tokens that are told of at most: the answer goes into one frame.
const MOST_TOKENS: usize = 256;

impl Core {
    /// What is wrong with the module, `None` if nothing is.
    pub fn trouble(&self) -> Option<String> {
        let hung = self.module.hung().map(|call| call.to_string());
        let module = || self.module.trouble();
        let slots = || self.registry.trouble();
        let tokens = || self.failing_tokens();
        hung.or_else(module).or_else(slots).or_else(tokens)
    }

    /// How the tokens fail, where no key signs on any.
    fn failing_tokens(&self) -> Option<String> {
        let known = self.registry.known();
        let failing = known
            .iter()
            .filter_map(|token| Some((token.name(), token.failing()?)));
        let failing: Vec<_> = failing.collect();
        let since = failing.iter().map(|(_, (since, _))| *since).min()?;
        let is_well = known
            .iter()
            .any(|token| token.life().has_signed_since(since));
        let told = failing
            .iter()
            .map(|(name, (_, why))| format!("the token {name} fails: {why}"));
        (!is_well).then(|| list(told))
    }

    /// How all of it fares.
    pub fn status(&self) -> StatusDetails {
        let counters = self
            .counts
            .message(self.logins.count(), self.module.reloads());
        let scope = self.settings().scope.clone();
        let known = self.registry.known().into_iter();
        let mut tokens: Vec<_> = known
            .filter(|token| !token.is_absent() && token.flags().token_initialized())
            .filter(|token| scope.matches_token(&token.info()))
            .map(|token| self.logins.status_of(&token))
            .collect();
        tokens.sort_unstable_by(|a, b| (&a.label, &a.uri).cmp(&(&b.label, &b.uri)));
        tokens.truncate(MOST_TOKENS);
        let hung = self.module.all_hung();
        StatusDetails::new(self.module.message(), counters)
            .tokens(tokens)
            .hung(hung.iter().map(|call| call.message()).collect())
            .last_error(self.counts.last_error())
    }
}
