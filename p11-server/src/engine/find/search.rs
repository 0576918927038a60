//! The one key that a URI means, found with no more logins than the search needs.
//!
//! Every token in scope is searched, in a stable order; one that fails is skipped. What is public is
//! looked at first; a login is made only on a token that shows the key, or, where none does, on the
//! only one that could be hiding it.

use std::collections::HashSet;
use std::sync::Arc;

use cryptoki::object::ObjectClass;
use p11_proto::Identity;
use p11_proto::spki::PublicKey;
use p11_uri::{ObjectType, Uri};
use tracing::warn;

use super::key::{self, Key};
use super::object::Object;
use super::pair::{add_other_halves, public_half};
use crate::engine::login::pin_guard::{Guard, Pins};
use crate::engine::module::Call;
use crate::engine::module::Era;
use crate::engine::token::Token;
use crate::error::Error;
use crate::service::Access;

/// One search for a key.
pub(crate) struct Search<'a> {
    /// The right to call the module.
    pub call: &'a Call<'a>,
    /// Stands before every login.
    pub guard: &'a Guard,
    /// What is looked for, already held to the server's scope.
    pub uri: &'a Uri,
    /// The PINs for a token that wants one.
    pub pins: Pins<'a>,
    /// The only key that will do.
    pub expected: Option<Identity>,
    /// Whether the client has opened that key before, so that another in its place is a change.
    pub opened: bool,
    /// The token where that key was last seen.
    pub last_token: Option<&'a Token>,
    /// Asked before a token is shown a PIN for the sake of a key, and about the key that is chosen.
    pub access: &'a dyn Access,
    /// The key that the URI meant before; it goes before others while it is there.
    pub preferred: Option<Identity>,
}

/// What one token shows of the keys that the URI could mean.
pub(super) struct Contents {
    pub(super) token: Arc<Token>,
    /// In which handles are good.
    era: Era,
    /// Private keys that can sign and whose public key is known, in a stable order.
    candidates: Vec<Candidate>,
    /// Public keys and certificates that match, in a stable order.
    public_objects: Vec<Object>,
    /// Private keys that could sign if only their public key were known, each with what it lacks.
    pub(super) unusable: Vec<(Object, String)>,
    /// Whether a login might show more.
    pub(super) hidden: bool,
}

struct Candidate {
    object: Object,
    public: PublicKey,
}

/// A token that could not be looked at.
pub(super) struct Skipped<'t> {
    pub(super) token: &'t Token,
    pub(super) error: Error,
}

impl Search<'_> {
    /// Finds the key among these tokens, of which those that the URI does not match are left out.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`], [`Error::KeyNotFound`] or [`Error::KeyChanged`],
    /// [`Error::KeyHidden`], and what a login can fail with.
    pub fn run(&self, tokens: &[Arc<Token>]) -> Result<Key, Error> {
        let tokens = self.in_scope(tokens)?;
        let (mut all, skipped) = self.all(&tokens)?;
        for wanted in [self.expected, self.preferred].into_iter().flatten() {
            let (first, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|v| v.shows(wanted));
            all = first.into_iter().chain(rest).collect();
        }
        self.warn_of(&all);
        let shown = all.iter().any(|contents| self.is_shown_by(contents));
        let may_guess = !shown && only_one_wants_a_login(&all);
        for contents in &all {
            if let Some(key) = self.take_from(contents, may_guess)? {
                return Ok(key);
            }
        }
        // Not a change of the key: nobody knows while its token fails.
        if let Some(last) = self.last_token
            && let Some(failed) = skipped.into_iter().find(|s| s.token.id() == last.id())
        {
            return Err(failed.error);
        }
        if !shown && !may_guess && all.iter().any(|contents| contents.hidden) {
            return Err(self.hidden(&all));
        }
        Err(self.not_found(&tokens))
    }

    /// Finds the public half of the key, with a login only where nothing public shows it.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn public_key(&self, tokens: &[Arc<Token>]) -> Result<(Uri, PublicKey), Error> {
        let tokens = self.in_scope(tokens)?;
        let (all, _) = self.all(&tokens)?;
        if let Some(found) = self.public_in(&all)? {
            return Ok(found);
        }
        let Some(hiding) = all.iter().find(|contents| contents.hidden) else {
            return Err(self.not_found(&tokens));
        };
        if !only_one_wants_a_login(&all) {
            return Err(self.hidden(&all));
        }
        self.access.check(&hiding.token.info(), None)?;
        self.guard.log_in(self.call, &hiding.token, self.pins)?;
        let (all, _) = self.all(&tokens)?;
        self.public_in(&all)?.ok_or_else(|| self.not_found(&tokens))
    }

    /// The first public half in sight.
    fn public_in(&self, all: &[Contents]) -> Result<Option<(Uri, PublicKey)>, Error> {
        for contents in all {
            let hint = |hint: &Object| Some((hint.info(), hint.public_key().ok()??));
            let candidate = contents.candidates.first();
            let found = candidate.map(|c| (c.object.info(), c.public.clone()));
            if let Some((info, public)) =
                found.or_else(|| contents.public_objects.iter().find_map(hint))
            {
                self.access.check(&contents.token.info(), Some(&info))?;
                return Ok(Some((
                    Uri::of_object(&contents.token.info(), &info),
                    public,
                )));
            }
        }
        Ok(None)
    }

    /// The tokens that the URI matches.
    fn in_scope(&self, tokens: &[Arc<Token>]) -> Result<Vec<Arc<Token>>, Error> {
        let matches = |token: &&Arc<Token>| self.uri.matches_token(&token.info());
        let matching: Vec<_> = tokens.iter().filter(matches).cloned().collect();
        if matching.is_empty() {
            return Err(self.no_token(tokens));
        }
        Ok(matching)
    }

    /// What the tokens show without a further login, and which of them had to be skipped.
    ///
    /// # Errors
    /// What the first of them said, where all fail.
    fn all<'t>(
        &self,
        tokens: &'t [Arc<Token>],
    ) -> Result<(Vec<Contents>, Vec<Skipped<'t>>), Error> {
        let (all, mut skipped) = self.look_around(tokens);
        if all.is_empty() && !skipped.is_empty() {
            return Err(skipped.swap_remove(0).error);
        }
        for Skipped { token, error } in &skipped {
            warn!("skipping the token {}: {error}", token.name());
        }
        Ok((all, skipped))
    }

    pub(super) fn look_around<'t>(
        &self,
        tokens: &'t [Arc<Token>],
    ) -> (Vec<Contents>, Vec<Skipped<'t>>) {
        let (mut all, mut skipped) = (Vec::new(), Vec::new());
        for token in tokens {
            match self.look(token) {
                Ok(contents) => all.push(contents),
                Err(error) => skipped.push(Skipped { token, error }),
            }
        }
        (all, skipped)
    }

    /// The key of one token: at once where it is in sight, after a login where that may show it.
    fn take_from(&self, contents: &Contents, may_guess: bool) -> Result<Option<Key>, Error> {
        let token = &contents.token;
        if let Some(candidate) = self.choose(&contents.candidates) {
            self.access
                .check(&token.info(), Some(&candidate.object.info()))?;
            self.guard.log_in(self.call, token, self.pins)?;
            return self.key(contents, candidate).map(Some);
        }
        if !contents.hidden || !(may_guess || self.is_shown_by(contents)) {
            return Ok(None);
        }
        self.access.check(&token.info(), None)?;
        self.guard.log_in(self.call, token, self.pins)?;
        let contents = self.look(token)?;
        match self.choose(&contents.candidates) {
            Some(chosen) => {
                self.access
                    .check(&token.info(), Some(&chosen.object.info()))?;
                self.warn_of(std::slice::from_ref(&contents));
                self.key(&contents, chosen).map(Some)
            }
            // The login was lost again meanwhile, so nobody knows.
            None if contents.hidden => Err(Error::Changed {
                token: token.name().into(),
            }),
            None => Ok(None),
        }
    }

    fn key(&self, contents: &Contents, chosen: &Candidate) -> Result<Key, Error> {
        let Candidate { object, public } = chosen;
        Key::new(self.call, &contents.token, contents.era, object, public)
    }

    fn choose<'c>(&self, candidates: &'c [Candidate]) -> Option<&'c Candidate> {
        let of = |identity| candidates.iter().find(|c| c.public.identity() == identity);
        match self.expected {
            Some(wanted) => of(wanted),
            None => self.preferred.and_then(of).or(candidates.first()),
        }
    }

    fn is_shown_by(&self, contents: &Contents) -> bool {
        match self.expected {
            Some(wanted) => contents.shows(wanted),
            None => !contents.candidates.is_empty() || !contents.public_objects.is_empty(),
        }
    }

    /// What the token shows without a further login.
    fn look(&self, token: &Arc<Token>) -> Result<Contents, Error> {
        let session = token.acquire(self.call)?;
        let logged_in = session.logged_in();
        let (label, id) = (self.uri.object(), self.uri.id());
        // Certificates and data are no keys, whatever they are called.
        let names_keys = matches!(
            self.uri.object_type(),
            None | Some(ObjectType::Private | ObjectType::Public)
        );
        let (mut public_objects, mut private) = (Vec::new(), Vec::new());
        if names_keys {
            public_objects = Object::find(&session, ObjectClass::PUBLIC_KEY, label, id)?;
            public_objects.extend(Object::find(&session, ObjectClass::CERTIFICATE, label, id)?);
            public_objects.sort_by_cached_key(|hint| (hint.label.clone(), hint.id.clone()));
            private = Object::find(&session, ObjectClass::PRIVATE_KEY, label, id)?;
            add_other_halves(
                &session,
                ObjectClass::PRIVATE_KEY,
                &public_objects,
                &mut private,
            )?;
        }
        let (mut candidates, mut unusable) = (Vec::new(), Vec::new());
        for object in private.into_iter().filter(Object::can_sign) {
            match public_half(&session, &object) {
                Ok(public) => candidates.push(Candidate { object, public }),
                Err(Error::NotSupported(why)) => {
                    let what = format!("{} cannot be used: {why}", key::uri(token, &object));
                    unusable.push((object, what));
                }
                Err(error) => return Err(error),
            }
        }
        candidates.sort_by_cached_key(|c| {
            (
                c.object.label.clone(),
                c.object.id.clone(),
                c.public.identity(),
            )
        });
        // A login may be lost, or be made for another request, at any time: it must have lasted.
        let logged_in = logged_in && session.still_logged_in()?;
        let era = session.era();
        session.finish();
        Ok(Contents {
            token: token.clone(),
            era,
            candidates,
            public_objects,
            unusable,
            hidden: names_keys && token.login_required() && !logged_in,
        })
    }

    /// What would make the choice a surprise: keys that cannot be used, and others that match where
    /// nobody said which.
    fn warn_of(&self, all: &[Contents]) {
        for (_, unusable) in all.iter().flat_map(|contents| &contents.unusable) {
            warn!("{unusable}");
        }
        if self.expected.is_some() || self.preferred.is_some() {
            return;
        }
        let all: Vec<_> = visible_keys(all).map(uri).collect();
        if let [_, _, ..] = all.as_slice() {
            warn!(
                "several keys match {}, and the first is taken: {}",
                self.uri.without_query(),
                all.join(", ")
            );
        }
    }
}

impl Contents {
    /// Whether the token shows the key of this identity, by either half.
    fn shows(&self, identity: Identity) -> bool {
        let is_it = |public: &PublicKey| public.identity() == identity;
        let hinted = |hint: &Object| matches!(hint.public_key(), Ok(Some(p)) if is_it(&p));
        self.candidates.iter().any(|c| is_it(&c.public)) || self.public_objects.iter().any(hinted)
    }

    /// The keys in sight: the private halves, or, while those hide, what shows that they are there.
    fn keys(&self) -> Vec<&Object> {
        if !self.hidden || !self.candidates.is_empty() {
            return self.candidates.iter().map(|c| &c.object).collect();
        }
        let mut seen = HashSet::new();
        let is_new = |hint: &&Object| match hint.public_key() {
            // A public key and its certificate are one key.
            Ok(Some(public)) => seen.insert(public.identity()),
            _ => true,
        };
        self.public_objects.iter().filter(is_new).collect()
    }
}

/// Whether a login would be no guess among several tokens. Those that are logged in count too: what
/// other clients have done must not decide which token is shown a PIN.
fn only_one_wants_a_login(all: &[Contents]) -> bool {
    let wants_it = |contents: &&Contents| contents.token.login_required();
    all.iter().filter(wants_it).count() == 1
}

/// In the order in which they would be chosen.
pub(super) fn visible_keys(all: &[Contents]) -> impl Iterator<Item = (&Token, &Object)> {
    all.iter().flat_map(|contents| {
        let keys = contents.keys().into_iter();
        keys.map(|key| (contents.token.as_ref(), key))
    })
}

pub(super) fn uri((token, key): (&Token, &Object)) -> String {
    key::uri(token, key).to_string()
}
