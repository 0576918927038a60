//! What the contents of one token show of the keys that a URI could mean.

use std::collections::HashSet;
use std::sync::Arc;

use p11_proto::Identity;
use p11_proto::spki::PublicKey;
use p11_uri::{ObjectType, Uri};

use super::contents::Contents;
use super::object::Object;
use super::pair::{Half, is_pair};
use crate::engine::sign::scheme::methods;
use crate::engine::token::Token;
use crate::error::Error;

/// What one token shows of the keys that the URI could mean.
pub(super) struct View {
    pub contents: Arc<Contents>,
    /// Private keys that can sign and whose public key is known, in a stable order.
    pub candidates: Vec<Candidate>,
    /// Public keys and certificates that match, in a stable order.
    pub public_objects: Vec<Object>,
    /// Private keys that match and cannot be used.
    pub unusable: Vec<Unusable>,
    /// Whether a login might show more.
    pub hidden: bool,
}

pub(super) struct Candidate {
    pub object: Object,
    pub half: Half,
}

/// A private key that cannot be used.
pub(super) struct Unusable {
    pub object: Object,
    /// Whether its public key is known.
    pub is_told: bool,
    /// What it lacks.
    pub why: String,
}

/// Public objects whose private halves are looked for: by public key where it can be told, else by id and
/// label.
struct PublicHalves<'v> {
    all: &'v [Object],
    told: HashSet<Identity>,
    untold: Vec<&'v Object>,
}

impl View {
    /// What of the contents the URI could mean, with or without what shows after a login only.
    pub fn of(uri: &Uri, contents: Arc<Contents>, sees_private: bool) -> View {
        // Certificates and data are no keys, whatever they are called.
        let names_keys = matches!(
            uri.object_type(),
            None | Some(ObjectType::Private | ObjectType::Public)
        );
        let shows = |object: &&Object| sees_private || !object.is_private();
        let matches = |object: &&Object| uri.matches_key(&object.label, &object.id);
        let mut view = View {
            candidates: Vec::new(),
            public_objects: Vec::new(),
            unusable: Vec::new(),
            hidden: names_keys && (contents.hidden || !sees_private),
            contents: contents.clone(),
        };
        if !names_keys {
            return view;
        }
        let others = contents.public.iter().chain(&contents.certificates);
        view.public_objects = others.filter(shows).filter(matches).cloned().collect();
        view.public_objects
            .sort_by(|a, b| (&a.label, &a.id).cmp(&(&b.label, &b.id)));
        let public_halves = PublicHalves::of(&view.public_objects);
        for (object, half) in contents.private.iter().zip(contents.pairs.halves()) {
            if !shows(&object)
                || !object.can_sign()
                || !(matches(&object) || public_halves.have_that_of(object, half))
            {
                continue;
            }
            match half {
                Ok(half) if can_sign_here(&contents, object, half) => {
                    view.candidates.push(Candidate {
                        object: object.clone(),
                        half: half.clone(),
                    });
                }
                half => view.unusable.push(Unusable {
                    object: object.clone(),
                    is_told: half.is_ok(),
                    why: match half {
                        Ok(_) => "its token has no mechanism that signs with it".into(),
                        Err(why) => why.to_string(),
                    },
                }),
            }
        }
        view.candidates.sort_by_cached_key(|c| {
            (
                c.object.label.clone(),
                c.object.id.clone(),
                c.half.public.identity(),
            )
        });
        view
    }

    /// Whether the token shows the key of this identity, by either half.
    pub fn shows(&self, identity: Identity) -> bool {
        let is_it = |public: &PublicKey| public.identity() == identity;
        let told = |object: &Object| matches!(object.public_key(), Ok(Some(p)) if is_it(&p));
        self.candidates.iter().any(|c| is_it(&c.half.public))
            || self.public_objects.iter().any(told)
    }

    /// The keys in sight: the private halves, or, while those hide, the public ones.
    pub fn keys(&self) -> Vec<&Object> {
        let in_sight = self.in_sight().into_iter();
        in_sight.filter(|key| key.certificate().is_none()).collect()
    }

    /// The same, with certificates that show what hides.
    pub fn in_sight(&self) -> Vec<&Object> {
        if !self.hidden || !self.candidates.is_empty() {
            return self.candidates.iter().map(|c| &c.object).collect();
        }
        let mut seen = HashSet::new();
        let is_new = |object: &&Object| match object.public_key() {
            // A public key and its certificate are one key.
            Ok(Some(public)) => seen.insert(public.identity()),
            _ => true,
        };
        let (certificates, keys): (Vec<_>, Vec<_>) = self
            .public_objects
            .iter()
            .partition(|object| object.certificate().is_some());
        keys.into_iter()
            .chain(certificates)
            .filter(is_new)
            .collect()
    }

    pub fn token(&self) -> &Token {
        &self.contents.token
    }
}

/// Whether the token has a mechanism for any scheme with this key. While it does not tell its mechanisms, it is believed
/// to have one.
fn can_sign_here(contents: &Contents, object: &Object, half: &Half) -> bool {
    contents.mechanisms.as_ref().is_none_or(|mechanisms| {
        let kind = half.public.kind();
        let allowed = object.allowed_mechanisms();
        !methods(kind, mechanisms, &allowed, object.can_decrypt()).is_empty()
    })
}

impl PublicHalves<'_> {
    fn of(all: &[Object]) -> PublicHalves<'_> {
        let (mut told, mut untold) = (HashSet::new(), Vec::new());
        for object in all {
            match object.public_key() {
                Ok(Some(public)) => drop(told.insert(public.identity())),
                _ => untold.push(object),
            }
        }
        PublicHalves { all, told, untold }
    }

    fn have_that_of(&self, object: &Object, half: &Result<Half, Error>) -> bool {
        let is_pair = |public: &Object| is_pair(object, public);
        match half {
            Ok(half) => {
                let by_key = self.told.contains(&half.public.identity());
                by_key || self.untold.iter().any(|public| is_pair(public))
            }
            Err(_) => self.all.iter().any(is_pair),
        }
    }
}
