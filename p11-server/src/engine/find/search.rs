//! The one key that a URI means, found with no more logins than the search needs.
//!
//! Every token in scope is searched, in a stable order; one that fails is skipped. What is public is
//! looked at first; a login is made only on a token that shows the key, or, where none does, on the
//! only one that could be hiding it.

use std::sync::Arc;
use std::time::Instant;

use p11_proto::Identity;
use p11_proto::spki::PublicKey;
use p11_uri::{ObjectType, Uri};
use tracing::warn;

use super::contents::{Contents, ContentsCache};
use super::key::Key;
use super::object::Object;
use super::pair::{Half, ToldBy};
use super::view::{Candidate, Unusable, View};
use crate::engine::login::{Logins, Pins};
use crate::engine::module::Module;
use crate::engine::token::Token;
use crate::engine::token::client::Client;
use crate::engine::token::lookup::usable;
use crate::engine::token::turns::Lane;
use crate::error::{Error, list};

/// One search for a key.
pub(crate) struct Search<'a> {
    pub module: &'a Arc<Module>,
    pub contents: &'a ContentsCache,
    pub client: &'a Client<'a>,
    /// Stands before every login.
    pub logins: &'a Logins,
    /// What is looked for, already held to the server's scope.
    pub uri: &'a Uri,
    /// The PINs for a token that wants one.
    pub pins: Pins<'a>,
    /// The only key that will do.
    pub expected: Option<Identity>,
    /// The public key of that one, where the client has given it.
    pub given: Option<&'a PublicKey>,
    /// Whether the client has opened that key before, so that another in its place is a change.
    pub opened: bool,
    /// The token where that key was last seen.
    pub last_token: Option<&'a Token>,
    /// The key that the URI meant before; it goes before others while it is there.
    pub preferred: Option<Identity>,
    /// When the request came: what was read of a token since then may be believed to miss something.
    pub since: Instant,
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
        let (mut views, skipped) = self.views(&tokens)?;
        for wanted in [self.expected, self.preferred].into_iter().flatten() {
            views.sort_by_key(|view| !view.shows(wanted));
        }
        let shown = views.iter().any(|view| self.is_shown_by(view));
        let may_guess = !shown && only_one_wants_a_login(&views);
        let mut refused = None;
        for view in &views {
            match self.take_from(view, may_guess) {
                Ok(Some(mut key)) => {
                    key.note = self.note_on_choice(&views);
                    return Ok(key);
                }
                Ok(None) => {}
                Err(error @ Error::NotAllowed(_)) => drop(refused.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        // Not a change of the key: nobody knows while its token fails.
        if let Some(last) = self.last_token
            && let Some(failed) = skipped.iter().find(|s| s.token.id() == last.id())
        {
            return Err(failed.error.clone());
        }
        if !shown && !may_guess && views.iter().any(|view| view.hidden) {
            return Err(self.hidden(&views));
        }
        match self.take_at_its_word(&views)? {
            Some(key) => Ok(key),
            None => Err(self.not_found(&views, &skipped)),
        }
    }

    /// The only key that could have the public key that the client gives, where no token tells the key's own. That it is
    /// the right one is proved by who verifies its signatures.
    fn take_at_its_word(&self, views: &[View]) -> Result<Option<Key>, Error> {
        let Some(given) = self.given else {
            return Ok(None);
        };
        let views = self.latest(views);
        if views.iter().any(|view| view.contents.pairs.have(given)) {
            return Ok(None);
        }
        let could_be = views.iter().filter(|view| !view.hidden).flat_map(|view| {
            let untold = view.contents.pairs.untold(&view.contents.private, given);
            let meant =
                untold.filter(|key| key.can_sign() && self.uri.matches_key(&key.label, &key.id));
            meant.map(move |key| (view, key))
        });
        let could_be: Vec<_> = could_be.collect();
        let [(view, object)] = could_be.as_slice() else {
            return Ok(None);
        };
        let token = &view.contents.token;
        self.client
            .access
            .check(&token.info(), Some(&object.info()))?;
        let half = Half {
            public: given.clone(),
            told_by: ToldBy::Client,
        };
        let mut key = self.open(view, object, &half)?;
        let note = format!(
            "nothing on the token tells the public key of {}, so the client is taken at its word that it is {}; store \
             its certificate or public key with the same id and label",
            key.uri(),
            key.identity()
        );
        warn!("{note}");
        key.note = Some(note);
        Ok(Some(key))
    }

    /// Finds the public half of the key, with a login only where nothing public shows it.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn public_key(&self, tokens: &[Arc<Token>]) -> Result<(Uri, PublicKey), Error> {
        let tokens = self.in_scope(tokens)?;
        let (views, skipped) = self.views(&tokens)?;
        if let Some(found) = self.public_in(&views)? {
            return Ok(found);
        }
        let Some(hiding) = views.iter().find(|view| view.hidden) else {
            return Err(self.not_found(&views, &skipped));
        };
        if !only_one_wants_a_login(&views) && !views.iter().any(|view| self.is_shown_by(view)) {
            return Err(self.hidden(&views));
        }
        let token = &hiding.contents.token;
        self.client.access.check(&token.info(), None)?;
        let shown = self.log_in_and_look(token)?;
        match self.public_in(std::slice::from_ref(&shown))? {
            Some(found) => Ok(found),
            None => Err(self.not_found(std::slice::from_ref(&shown), &skipped)),
        }
    }

    /// The public half of the key that would be chosen. Where its private half hides, it is the only public
    /// key that matches and that the client may use; certificates alone could be of anybody.
    fn public_in(&self, views: &[View]) -> Result<Option<(Uri, PublicKey)>, Error> {
        for view in views {
            let token = view.token().info();
            if let Some(chosen) = self.choose(view)? {
                let uri = Uri::of_object(&token, &chosen.object.info());
                return Ok(Some((uri, chosen.half.public.clone())));
            }
            if !view.hidden {
                continue;
            }
            let public_keys = view.public_objects.iter();
            let public_keys = public_keys.filter(|object| object.certificate().is_none());
            let told = public_keys.filter_map(|key| Some((key, key.public_key().ok()??)));
            let told: Vec<_> = told.collect();
            let check = |key: &Object| self.client.access.check(&token, Some(&key.info()));
            let mut usable = told.iter().filter(|(key, _)| check(key).is_ok());
            if let (Some((key, public)), None) = (usable.next(), usable.next()) {
                return Ok(Some((Uri::of_object(&token, &key.info()), public.clone())));
            }
            if let [(key, _)] = told.as_slice() {
                check(key)?;
            }
        }
        Ok(None)
    }

    /// The tokens that the URI matches and that the client may use.
    fn in_scope(&self, tokens: &[Arc<Token>]) -> Result<Vec<Arc<Token>>, Error> {
        let usable = usable(tokens, self.uri, self.client.access)?;
        match usable.is_empty() {
            true => Err(self.no_token(tokens)),
            false => Ok(usable),
        }
    }

    /// What the tokens show without a further login, and which of them had to be skipped. A key that is there
    /// may be found in what was read for others a moment ago.
    ///
    /// # Errors
    /// What the first of them said, where all fail; [`Error::Timeout`] where nobody waits any more.
    fn views<'t>(&self, tokens: &'t [Arc<Token>]) -> Result<(Vec<View>, Vec<Skipped<'t>>), Error> {
        let recent = self.module.timeouts().contents;
        let recent = self.since.checked_sub(recent).unwrap_or(self.since);
        let (mut views, mut skipped) = self.views_since(tokens, recent)?;
        if !views
            .iter()
            .any(|view| matches!(self.choose(view), Ok(Some(_))))
        {
            (views, skipped) = self.views_since(tokens, self.since)?;
        }
        if views.is_empty() && !skipped.is_empty() {
            return Err(skipped.swap_remove(0).error);
        }
        if !skipped.is_empty() {
            let each = skipped.iter();
            let each = each.map(|s| format!("the token {}: {}", s.token.name(), s.error));
            warn!("skipping {}", list(each));
        }
        Ok((views, skipped))
    }

    fn views_since<'t>(
        &self,
        tokens: &'t [Arc<Token>],
        since: Instant,
    ) -> Result<(Vec<View>, Vec<Skipped<'t>>), Error> {
        let (mut views, mut skipped) = (Vec::new(), Vec::new());
        for token in tokens {
            let read = self
                .contents
                .get(self.module, self.client, token, Lane::Search, since);
            match read {
                Ok(contents) => views.push(self.view(contents)),
                Err(error) => {
                    self.client.still_waits()?;
                    skipped.push(Skipped { token, error });
                }
            }
        }
        Ok((views, skipped))
    }

    /// The key of one token: at once where it is in sight, after a login where that may show it.
    fn take_from(&self, view: &View, may_guess: bool) -> Result<Option<Key>, Error> {
        let token = &view.contents.token;
        if let Some(chosen) = self.choose(view)? {
            return self.open(view, &chosen.object, &chosen.half).map(Some);
        }
        if !view.hidden || !(may_guess || self.is_shown_by(view)) {
            return Ok(None);
        }
        self.client.access.check(&token.info(), None)?;
        let view = self.log_in_and_look(token)?;
        match self.choose(&view)? {
            Some(_) => self.take_from(&view, false),
            // The login was lost again meanwhile, so nobody knows.
            None if view.hidden => Err(self.changed(token)),
            None => Ok(None),
        }
    }

    /// A key in sight, on a token that is logged in if the key wants that.
    fn open(&self, view: &View, object: &Object, half: &Half) -> Result<Key, Error> {
        let token = &view.contents.token;
        let session = token.acquire(self.module, self.client, Lane::Search)?;
        if object.needs_login() {
            self.logins.log_in(&session, self.client, self.pins)?;
        }
        if !std::ptr::eq(Arc::as_ptr(session.life()), view.contents.life.as_ptr()) {
            return Err(self.changed(token));
        }
        let key = Key::new(&session, object, half)?;
        session.prepare_signing();
        Ok(key)
    }

    /// What the token shows after a login.
    fn log_in_and_look(&self, token: &Arc<Token>) -> Result<View, Error> {
        let session = token.acquire(self.module, self.client, Lane::Search)?;
        self.logins.log_in(&session, self.client, self.pins)?;
        // What was read for others who are logged in is as good.
        let contents = match self.contents.known_since(token, self.since) {
            Some(contents) if !contents.hidden => contents,
            _ => self.contents.read(&session, self.client)?,
        };
        Ok(self.view(contents))
    }

    fn changed(&self, token: &Token) -> Error {
        let token = token.name().into();
        Error::Changed { token }
    }

    /// The first candidate that the client may use, the expected or preferred one before others.
    fn choose<'v>(&self, view: &'v View) -> Result<Option<&'v Candidate>, Error> {
        let token = view.contents.token.info();
        let is = |candidate: &Candidate, wanted| candidate.half.public.identity() == wanted;
        let mut candidates: Vec<_> = view.candidates.iter().collect();
        if let Some(expected) = self.expected {
            candidates.retain(|candidate| is(candidate, expected));
        } else if let Some(preferred) = self.preferred {
            candidates.sort_by_key(|candidate| !is(candidate, preferred));
        }
        let mut refused = None;
        for candidate in candidates {
            match self
                .client
                .access
                .check(&token, Some(&candidate.object.info()))
            {
                Ok(()) => return Ok(Some(candidate)),
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn is_shown_by(&self, view: &View) -> bool {
        match self.expected {
            Some(wanted) => view.shows(wanted),
            None => !view.candidates.is_empty() || !view.public_objects.is_empty(),
        }
    }

    /// What the URI could mean of these contents.
    fn view(&self, contents: Arc<Contents>) -> View {
        let token = &contents.token;
        let sees_private = self.logins.may_see_private(self.client, token, self.pins);
        View::of(self.uri, contents, sees_private)
    }

    /// The same of what was read of the tokens last, perhaps after a login.
    pub(super) fn latest(&self, views: &[View]) -> Vec<View> {
        let latest = |view: &View| self.view(self.contents.latest(&view.contents));
        views.iter().map(latest).collect()
    }
}

/// Whether a login would be no guess among several tokens. Those that are logged in count too: what
/// other clients have done must not decide which token is shown a PIN.
fn only_one_wants_a_login(views: &[View]) -> bool {
    let wants_it = |view: &&View| view.contents.token.flags().login_required();
    views.iter().filter(wants_it).count() == 1
}

/// The URI of a key, or of a certificate that shows one.
pub(super) fn uri(token: &Token, object: &Object) -> Uri {
    let object_type = match object.certificate() {
        Some(_) => ObjectType::Cert,
        None => ObjectType::Private,
    };
    Uri::of_object(&token.info(), &object.info_as(object_type))
}

/// A key that cannot be used, and why.
pub(super) fn unusable(token: &Token, key: &Unusable) -> String {
    format!("{} cannot be used: {}", uri(token, &key.object), key.why)
}
