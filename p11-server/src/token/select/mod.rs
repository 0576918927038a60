//! A URI enters, the one key that it means leaves, after no more logins than the search needs.
//!
//! Every token in scope is searched, in a stable order; one that fails is skipped. What is public is
//! looked at first; a login is made only on a token that shows the key, or, where none does, on the
//! only one that could be hiding it.

mod miss;

use std::collections::HashSet;
use std::sync::Arc;

use cryptoki::object::ObjectClass;
use p11_proto::Identity;
use p11_proto::spki::PublicKey;
use p11_uri::{ObjectType, Uri};
use tracing::warn;

use super::guard::{Guard, Pins};
use super::keys::{self, Key};
use super::module::Call;
use super::objects::Object;
use super::pairs::{add_other_halves, public_half};
use super::session::{Era, Token};
use crate::error::Error;
use crate::service::Access;

/// One search for a key.
pub struct Search<'a> {
    /// The right to call the module.
    pub call: &'a Call<'a>,
    /// Stands before every login.
    pub guard: &'a Guard,
    /// What is looked for, already held to the server's scope.
    pub uri: &'a Uri,
    /// The PINs for a token that wants one.
    pub pins: Pins<'a>,
    /// The only key that will do.
    pub wanted: Option<Identity>,
    /// Whether the client has opened that key before, so that another in its place is a change.
    pub opened: bool,
    /// The token where that key was last seen.
    pub home: Option<&'a Token>,
    /// Asked before a token is shown a PIN for the sake of a key, and about the key that is chosen.
    pub access: &'a dyn Access,
    /// The key that the URI meant before; it goes before others while it is there.
    pub preferred: Option<Identity>,
}

/// What one token shows of the keys that the URI could mean.
struct View {
    token: Arc<Token>,
    /// In which handles are good.
    era: Era,
    /// Private keys that can sign and whose public key is known, in a stable order.
    candidates: Vec<Candidate>,
    /// Public keys and certificates that match, in a stable order.
    hints: Vec<Object>,
    /// Private keys that could sign if only their public key were known, each with what it lacks.
    unusable: Vec<(Object, String)>,
    /// Whether a login might show more.
    hidden: bool,
}

struct Candidate {
    object: Object,
    public: PublicKey,
}

/// A token that could not be looked at.
struct Skipped<'t> {
    token: &'t Token,
    error: Error,
}

impl Search<'_> {
    /// Finds the key among these tokens, of which those that the URI does not match are left out.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`], [`Error::KeyNotFound`] or [`Error::KeyChanged`],
    /// [`Error::KeyHidden`], and what a login can fail with.
    pub fn run(&self, tokens: &[Arc<Token>]) -> Result<Key, Error> {
        let tokens = self.in_scope(tokens)?;
        let (mut views, skipped) = self.views(&tokens)?;
        for wanted in [self.wanted, self.preferred].into_iter().flatten() {
            let (first, rest): (Vec<_>, Vec<_>) = views.into_iter().partition(|v| v.shows(wanted));
            views = first.into_iter().chain(rest).collect();
        }
        self.warn_of(&views);
        let shown = views.iter().any(|view| self.is_shown_by(view));
        let may_guess = !shown && only_one_wants_a_login(&views);
        for view in &views {
            if let Some(key) = self.take_from(view, may_guess)? {
                return Ok(key);
            }
        }
        // Not a change of the key: nobody knows while its token fails.
        if let Some(home) = self.home
            && let Some(failed) = skipped.into_iter().find(|s| s.token.id() == home.id())
        {
            return Err(failed.error);
        }
        if !shown && !may_guess && views.iter().any(|view| view.hidden) {
            return Err(self.hidden(&views));
        }
        Err(self.not_found(&tokens))
    }

    /// Finds the public half of the key, with a login only where nothing public shows it.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn public_key(&self, tokens: &[Arc<Token>]) -> Result<(Uri, PublicKey), Error> {
        let tokens = self.in_scope(tokens)?;
        let (views, _) = self.views(&tokens)?;
        if let Some(found) = self.public_in(&views)? {
            return Ok(found);
        }
        let Some(hiding) = views.iter().find(|view| view.hidden) else {
            return Err(self.not_found(&tokens));
        };
        if !only_one_wants_a_login(&views) {
            return Err(self.hidden(&views));
        }
        self.access.check(&hiding.token.facts(), None)?;
        self.guard.log_in(self.call, &hiding.token, self.pins)?;
        let (views, _) = self.views(&tokens)?;
        self.public_in(&views)?
            .ok_or_else(|| self.not_found(&tokens))
    }

    /// The first public half in sight.
    fn public_in(&self, views: &[View]) -> Result<Option<(Uri, PublicKey)>, Error> {
        for view in views {
            let hint = |hint: &Object| Some((hint.facts(), hint.public_key().ok()??));
            let candidate = view.candidates.first();
            let found = candidate.map(|c| (c.object.facts(), c.public.clone()));
            if let Some((facts, public)) = found.or_else(|| view.hints.iter().find_map(hint)) {
                self.access.check(&view.token.facts(), Some(&facts))?;
                return Ok(Some((Uri::of_object(&view.token.facts(), &facts), public)));
            }
        }
        Ok(None)
    }

    /// The tokens that the URI matches.
    fn in_scope(&self, tokens: &[Arc<Token>]) -> Result<Vec<Arc<Token>>, Error> {
        let matches = |token: &&Arc<Token>| self.uri.matches_token(&token.facts());
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
    fn views<'t>(&self, tokens: &'t [Arc<Token>]) -> Result<(Vec<View>, Vec<Skipped<'t>>), Error> {
        let (views, mut skipped) = self.look_around(tokens);
        if views.is_empty() && !skipped.is_empty() {
            return Err(skipped.swap_remove(0).error);
        }
        for Skipped { token, error } in &skipped {
            warn!("skipping the token {}: {error}", token.name());
        }
        Ok((views, skipped))
    }

    fn look_around<'t>(&self, tokens: &'t [Arc<Token>]) -> (Vec<View>, Vec<Skipped<'t>>) {
        let (mut views, mut skipped) = (Vec::new(), Vec::new());
        for token in tokens {
            match self.look(token) {
                Ok(view) => views.push(view),
                Err(error) => skipped.push(Skipped { token, error }),
            }
        }
        (views, skipped)
    }

    /// The key of one token: at once where it is in sight, after a login where that may show it.
    fn take_from(&self, view: &View, may_guess: bool) -> Result<Option<Key>, Error> {
        let token = &view.token;
        if let Some(candidate) = self.choose(&view.candidates) {
            self.access
                .check(&token.facts(), Some(&candidate.object.facts()))?;
            self.guard.log_in(self.call, token, self.pins)?;
            return self.key(view, candidate).map(Some);
        }
        if !view.hidden || !(may_guess || self.is_shown_by(view)) {
            return Ok(None);
        }
        self.access.check(&token.facts(), None)?;
        self.guard.log_in(self.call, token, self.pins)?;
        let view = self.look(token)?;
        match self.choose(&view.candidates) {
            Some(chosen) => {
                self.access
                    .check(&token.facts(), Some(&chosen.object.facts()))?;
                self.warn_of(std::slice::from_ref(&view));
                self.key(&view, chosen).map(Some)
            }
            // The login was lost again meanwhile, so nobody knows.
            None if view.hidden => Err(Error::Changed {
                token: token.name().into(),
            }),
            None => Ok(None),
        }
    }

    fn key(&self, view: &View, chosen: &Candidate) -> Result<Key, Error> {
        let Candidate { object, public } = chosen;
        Key::new(self.call, &view.token, view.era, object, public)
    }

    fn choose<'c>(&self, candidates: &'c [Candidate]) -> Option<&'c Candidate> {
        let of = |identity| candidates.iter().find(|c| c.public.identity() == identity);
        match self.wanted {
            Some(wanted) => of(wanted),
            None => self.preferred.and_then(of).or(candidates.first()),
        }
    }

    fn is_shown_by(&self, view: &View) -> bool {
        match self.wanted {
            Some(wanted) => view.shows(wanted),
            None => !view.candidates.is_empty() || !view.hints.is_empty(),
        }
    }

    /// What the token shows without a further login.
    fn look(&self, token: &Arc<Token>) -> Result<View, Error> {
        let session = token.lend(self.call)?;
        let logged_in = session.logged_in();
        let (label, id) = (self.uri.object(), self.uri.id());
        // Certificates and data are no keys, whatever they are called.
        let names_keys = matches!(
            self.uri.object_type(),
            None | Some(ObjectType::Private | ObjectType::Public)
        );
        let (mut hints, mut private) = (Vec::new(), Vec::new());
        if names_keys {
            hints = Object::find(&session, ObjectClass::PUBLIC_KEY, label, id)?;
            hints.extend(Object::find(&session, ObjectClass::CERTIFICATE, label, id)?);
            hints.sort_by_cached_key(|hint| (hint.label.clone(), hint.id.clone()));
            private = Object::find(&session, ObjectClass::PRIVATE_KEY, label, id)?;
            add_other_halves(&session, ObjectClass::PRIVATE_KEY, &hints, &mut private)?;
        }
        let (mut candidates, mut unusable) = (Vec::new(), Vec::new());
        for object in private.into_iter().filter(Object::can_sign) {
            match public_half(&session, &object) {
                Ok(public) => candidates.push(Candidate { object, public }),
                Err(Error::NotSupported(why)) => {
                    let what = format!("{} cannot be used: {why}", keys::uri(token, &object));
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
        Ok(View {
            token: token.clone(),
            era,
            candidates,
            hints,
            unusable,
            hidden: names_keys && token.login_required() && !logged_in,
        })
    }

    /// What would make the choice a surprise: keys that cannot be used, and others that match where
    /// nobody said which.
    fn warn_of(&self, views: &[View]) {
        for (_, unusable) in views.iter().flat_map(|view| &view.unusable) {
            warn!("{unusable}");
        }
        if self.wanted.is_some() || self.preferred.is_some() {
            return;
        }
        let all: Vec<_> = keys_in_sight(views).map(uri).collect();
        if let [_, _, ..] = all.as_slice() {
            warn!(
                "several keys match {}, and the first is taken: {}",
                self.uri.without_query(),
                all.join(", ")
            );
        }
    }
}

impl View {
    /// Whether the token shows the key of this identity, by either half.
    fn shows(&self, identity: Identity) -> bool {
        let is_it = |public: &PublicKey| public.identity() == identity;
        let hinted = |hint: &Object| matches!(hint.public_key(), Ok(Some(p)) if is_it(&p));
        self.candidates.iter().any(|c| is_it(&c.public)) || self.hints.iter().any(hinted)
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
        self.hints.iter().filter(is_new).collect()
    }
}

/// Whether a login would be no guess among several tokens. Those that are logged in count too: what
/// other clients have done must not decide which token is shown a PIN.
fn only_one_wants_a_login(views: &[View]) -> bool {
    let wants_it = |view: &&View| view.token.login_required();
    views.iter().filter(wants_it).count() == 1
}

/// In the order in which they would be chosen.
fn keys_in_sight(views: &[View]) -> impl Iterator<Item = (&Token, &Object)> {
    views.iter().flat_map(|view| {
        let keys = view.keys().into_iter();
        keys.map(|key| (view.token.as_ref(), key))
    })
}

fn uri((token, key): (&Token, &Object)) -> String {
    keys::uri(token, key).to_string()
}
