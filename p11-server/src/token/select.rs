//! A URI enters, the one key that it means leaves, after no more logins than the search needs.
//!
//! Every token in scope is searched, in a stable order. What is public is looked at first; a login
//! is made only on a token that shows the key, or on the only one that could be hiding it.

use std::sync::Arc;

use cryptoki::object::ObjectClass;
use cryptoki::session::Session;
use p11_proto::Identity;
use p11_proto::spki::PublicKey;
use p11_uri::{ObjectType, Uri};
use tracing::warn;

use super::keys::{self, Key};
use super::login::{Guard, Pins};
use super::module::Call;
use super::objects::Object;
use super::session::Token;
use crate::error::Error;
use crate::service::Access;

/// Keys that an error message names at most.
const MOST_NAMED: usize = 10;

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
    /// Asked before a token is shown a PIN for the sake of a key, and about the key that is chosen.
    pub access: &'a dyn Access,
    /// The key that the URI meant before; it goes before others while it is there.
    pub preferred: Option<Identity>,
}

/// What one token shows of the keys that the URI could mean.
struct View {
    token: Arc<Token>,
    /// Private keys that can sign and whose public key is known, in a stable order.
    candidates: Vec<Candidate>,
    /// Public keys and certificates that match.
    hints: Vec<Object>,
    /// Whether a login might show more.
    hidden: bool,
}

struct Candidate {
    object: Object,
    public: PublicKey,
}

impl Search<'_> {
    /// Finds the key among these tokens, of which those that the URI does not match are left out.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`], [`Error::KeyNotFound`] or [`Error::KeyChanged`],
    /// [`Error::AmbiguousToken`], and what a login can fail with.
    pub fn run(&self, tokens: &[Arc<Token>]) -> Result<Key, Error> {
        let tokens = self.in_scope(tokens)?;
        let mut views = self.views(&tokens)?;
        for wanted in [self.wanted, self.preferred].into_iter().flatten() {
            views.sort_by_key(|view| !view.shows(wanted));
        }
        self.warn_of_others(&views);

        let hiding = views.iter().filter(|view| view.hidden).count();
        let nothing_shows = hiding > 1 && !views.iter().any(|view| self.is_shown_by(view));
        for view in &views {
            let alone = view.hidden && hiding == 1;
            if let Some(key) = self.take_from(view, alone)? {
                return Ok(key);
            }
        }
        if nothing_shows {
            return Err(ambiguous(&views));
        }
        Err(self.not_found(&tokens))
    }

    /// Finds the public half of the key, with a login only where nothing public shows it.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn public_key(&self, tokens: &[Arc<Token>]) -> Result<(Uri, PublicKey), Error> {
        let tokens = self.in_scope(tokens)?;
        let mut views = self.views(&tokens)?;
        let mut first = true;
        loop {
            for view in &views {
                let hint = |hint: &Object| Some((hint.facts(), hint.public_key().ok()??));
                let candidate = view.candidates.first();
                let found = candidate.map(|c| (c.object.facts(), c.public.clone()));
                if let Some((facts, public)) = found.or_else(|| view.hints.iter().find_map(hint)) {
                    self.access.check(&view.token.facts(), Some(&facts))?;
                    return Ok((Uri::of_object(&view.token.facts(), &facts), public));
                }
            }
            match views
                .iter()
                .filter(|view| view.hidden)
                .collect::<Vec<_>>()
                .as_slice()
            {
                [hiding] if first => {
                    self.access.check(&hiding.token.facts(), None)?;
                    self.guard.log_in(self.call, &hiding.token, self.pins)?;
                }
                [_, _, ..] => return Err(ambiguous(&views)),
                _ => return Err(self.not_found(&tokens)),
            }
            views = self.views(&tokens)?;
            first = false;
        }
    }

    /// The tokens that the URI matches.
    fn in_scope(&self, tokens: &[Arc<Token>]) -> Result<Vec<Arc<Token>>, Error> {
        let matches = |token: &&Arc<Token>| self.uri.matches_token(&token.facts());
        let tokens: Vec<_> = tokens.iter().filter(matches).cloned().collect();
        if tokens.is_empty() {
            return Err(Error::TokenNotFound(format!(
                "Didn't find a slot to use: no initialised token matches {}",
                self.uri.without_query()
            )));
        }
        Ok(tokens)
    }

    /// What the tokens show without a further login. One that fails is skipped, unless it is the only
    /// one.
    fn views(&self, tokens: &[Arc<Token>]) -> Result<Vec<View>, Error> {
        let mut views = Vec::new();
        for token in tokens {
            match self.look(token) {
                Ok(view) => views.push(view),
                Err(error) if tokens.len() > 1 => {
                    warn!("skipping the token {}: {error}", token.name());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(views)
    }

    /// The key of one token: at once where it is in sight, after a login where that may show it.
    fn take_from(&self, view: &View, only_hiding_place: bool) -> Result<Option<Key>, Error> {
        let token = &view.token;
        if let Some(candidate) = self.choose(&view.candidates) {
            self.access
                .check(&token.facts(), Some(&candidate.object.facts()))?;
            self.guard.log_in(self.call, token, self.pins)?;
            return Key::new(self.call, token, &candidate.object, &candidate.public).map(Some);
        }
        if !view.hidden || !(only_hiding_place || self.is_shown_by(view)) {
            return Ok(None);
        }
        self.access.check(&token.facts(), None)?;
        self.guard.log_in(self.call, token, self.pins)?;
        let view = self.look(token)?;
        match self.choose(&view.candidates) {
            Some(chosen) => {
                self.access
                    .check(&token.facts(), Some(&chosen.object.facts()))?;
                self.warn_of_others(std::slice::from_ref(&view));
                Key::new(self.call, token, &chosen.object, &chosen.public).map(Some)
            }
            None => Ok(None),
        }
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
        let (label, id) = (self.uri.object(), self.uri.id());
        let mut hints = Vec::new();
        let mut private = Vec::new();
        if matches!(
            self.uri.object_type(),
            None | Some(ObjectType::Private | ObjectType::Public)
        ) {
            hints = Object::find(&session, ObjectClass::PUBLIC_KEY, label, id)?;
            hints.extend(Object::find(&session, ObjectClass::CERTIFICATE, label, id)?);
            private = Object::find(&session, ObjectClass::PRIVATE_KEY, label, id)?;
            for hint in &hints {
                add_other_half(&session, ObjectClass::PRIVATE_KEY, hint, &mut private)?;
            }
        }
        let mut candidates = Vec::new();
        for object in private.into_iter().filter(Object::can_sign) {
            match public_half(&session, &object) {
                Ok(public) => candidates.push(Candidate { object, public }),
                Err(Error::NotSupported(why)) => {
                    warn!("{} cannot be used: {why}", keys::uri(token, &object));
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
        session.finish();
        Ok(View {
            token: token.clone(),
            candidates,
            hints,
            hidden: token.info().login_required() && !token.is_logged_in(self.call),
        })
    }

    /// Several keys match and nobody said which: the others are named, so that the choice is no
    /// surprise.
    fn warn_of_others(&self, views: &[View]) {
        if self.wanted.is_some() || self.preferred.is_some() {
            return;
        }
        let all: Vec<String> = views.iter().flat_map(View::uris).collect();
        if let [_, _, ..] = all.as_slice() {
            warn!(
                "several keys match {}, and the first is taken: {}",
                self.uri.without_query(),
                all.join(", ")
            );
        }
    }

    fn not_found(&self, tokens: &[Arc<Token>]) -> Error {
        let looked_for = self.uri.without_query();
        let unconstrained = Search {
            uri: &Uri::default(),
            wanted: None,
            ..*self
        };
        let there = |uri: &Search<'_>| -> Vec<String> {
            let views = tokens.iter().filter_map(|token| uri.look(token).ok());
            views.flat_map(|view| view.uris()).collect()
        };
        // The URI leads to keys, but not to the one of the client's certificate.
        if let Some(wanted) = self.wanted {
            let others = there(self);
            if !others.is_empty() && self.opened {
                return Error::KeyChanged {
                    uri: looked_for.to_string(),
                    opened: wanted,
                };
            }
            if !others.is_empty() {
                return Error::KeyNotFound(format!(
                    "Failed to find a signing key: none of those that match {looked_for} has the \
                     public key {wanted}; there are {}",
                    list(others)
                ));
            }
        }
        let names: Vec<_> = tokens.iter().map(|token| token.name().to_owned()).collect();
        let mut message = format!(
            "Failed to find a signing key: none matches {looked_for}; searched {}",
            names.join(", ")
        );
        let all = there(&unconstrained);
        if all.is_empty() {
            message.push_str(", where no key that can sign is in sight");
        } else {
            message.push_str(", where there are ");
            message.push_str(&list(all));
        }
        Error::KeyNotFound(message)
    }
}

impl View {
    /// Whether the token shows the key of this identity, by either half.
    fn shows(&self, identity: Identity) -> bool {
        let is_it = |public: &PublicKey| public.identity() == identity;
        let hinted = |hint: &Object| matches!(hint.public_key(), Ok(Some(p)) if is_it(&p));
        self.candidates.iter().any(|c| is_it(&c.public)) || self.hints.iter().any(hinted)
    }

    /// The keys in sight, by their private half, else by their public one.
    fn uris(&self) -> Vec<String> {
        let private = self.candidates.iter().map(|candidate| &candidate.object);
        let mut uris: Vec<String> = match self.hidden && self.candidates.is_empty() {
            true => self
                .hints
                .iter()
                .map(|hint| keys::uri(&self.token, hint).to_string())
                .collect(),
            false => private
                .map(|object| keys::uri(&self.token, object).to_string())
                .collect(),
        };
        uris.dedup();
        uris
    }
}

/// Adds the halves of a class that belong to another half: of the same id, else of the same label.
///
/// # Errors
/// What the module said.
pub fn add_other_half(
    session: &Session,
    class: ObjectClass,
    of: &Object,
    halves: &mut Vec<Object>,
) -> Result<(), Error> {
    let mut found = match of.id.is_empty() {
        true => Vec::new(),
        false => Object::find(session, class, None, Some(&of.id))?,
    };
    if found.is_empty() && !of.label.is_empty() {
        found = Object::find(session, class, Some(&of.label), None)?;
    }
    for object in found {
        if !halves.iter().any(|known| known.handle == object.handle) {
            halves.push(object);
        }
    }
    Ok(())
}

/// The public key of a private one: from itself, else from the public key, else the certificate, of
/// equal id; among several of those, from the one of equal label.
///
/// # Errors
/// [`Error::NotSupported`] where it cannot be told, or is of a kind that we do not know.
pub fn public_half(session: &Session, private: &Object) -> Result<PublicKey, Error> {
    if let Some(public) = private.public_key()? {
        return Ok(public);
    }
    let id = Some(private.id.as_slice()).filter(|id| !id.is_empty());
    let label = Some(private.label.as_str()).filter(|_| id.is_none());
    for class in [ObjectClass::PUBLIC_KEY, ObjectClass::CERTIFICATE] {
        let mut halves = Object::find(session, class, label, id)?;
        if halves.len() > 1 {
            halves.retain(|half| half.label == private.label);
        }
        let mut keys = Vec::new();
        for half in &halves {
            keys.extend(half.public_key()?);
        }
        keys.dedup();
        match keys.as_slice() {
            [] => {}
            [key] => return Ok(key.clone()),
            _ => {
                return Err(Error::NotSupported(
                    "several public keys have its id and label, so its own cannot be told".into(),
                ));
            }
        }
    }
    Err(Error::NotSupported(
        "its public key is nowhere on the token; store the public key or the certificate with the \
         same id"
            .into(),
    ))
}

/// Several tokens could be hiding the key, and none is shown a PIN for that.
fn ambiguous(views: &[View]) -> Error {
    let hiding = views.iter().filter(|view| view.hidden);
    let names: Vec<_> = hiding.map(|view| view.token.name()).collect();
    Error::AmbiguousToken(format!(
        "Found multiple initialized tokens that could hold the key, and each wants a login, so none \
         was tried; add token=… or serial=… to the URI to name one of: {}",
        names.join(", ")
    ))
}

fn list(uris: Vec<String>) -> String {
    let more = uris.len().saturating_sub(MOST_NAMED);
    let mut text = uris
        .into_iter()
        .take(MOST_NAMED)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
