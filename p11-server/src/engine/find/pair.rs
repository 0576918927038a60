//! Which halves of key pairs belong together: by public key where it can be told, else by id and label, which
//! are what users made of them.

use std::collections::HashMap;
use std::hash::Hash;

use cryptoki::object::{ObjectClass, ObjectHandle};
use p11_proto::spki::PublicKey;

use super::object::Object;
use crate::error::Error;

/// The private keys of a token with their public keys, in the order of the private keys.
pub(crate) struct Pairs(Vec<Result<Half, Error>>);

/// The public key of a private one, and who told it.
#[derive(Clone)]
pub(crate) struct Half {
    pub public: PublicKey,
    pub told_by: ToldBy,
}

/// Who told the public key of a private one.
#[derive(Clone, Copy)]
pub(crate) enum ToldBy {
    /// The private key itself.
    Itself,
    /// Another object.
    Object(ObjectHandle, ObjectClass),
    /// The client, which is taken at its word.
    Client,
}

/// Objects that tell a public key, by what they can be found by.
struct Index<'o> {
    by_id: HashMap<&'o [u8], Vec<(&'o Object, PublicKey)>>,
    by_label: HashMap<&'o str, Vec<(&'o Object, PublicKey)>>,
    /// Objects of which the public key is of a kind that we do not know.
    unknown: HashMap<&'o [u8], Error>,
}

impl Pairs {
    /// Joins the objects of a token, in time that grows with their number.
    pub fn join(private: &[Object], public: &[Object], certificates: &[Object]) -> Pairs {
        let (public, certificates) = (Index::of(public), Index::of(certificates));
        let mut of_id = HashMap::<&[u8], usize>::new();
        for key in private {
            *of_id.entry(&key.id).or_default() += 1;
        }
        let half = |key: &Object| {
            if let Some(own) = key.public_key()? {
                return Ok(Half {
                    public: own,
                    told_by: ToldBy::Itself,
                });
            }
            let is_only = of_id.get(key.id.as_slice()) == Some(&1);
            for (index, class) in [
                (&public, ObjectClass::PUBLIC_KEY),
                (&certificates, ObjectClass::CERTIFICATE),
            ] {
                if let Some((object, public)) = index.half_of(key, is_only)? {
                    return Ok(Half {
                        public: public.clone(),
                        told_by: ToldBy::Object(object.handle, class),
                    });
                }
            }
            Err(Error::NotSupported(
                "its public key is nowhere on the token; store the public key or the certificate with \
                 the same id and label"
                    .into(),
            ))
        };
        Pairs(private.iter().map(half).collect())
    }

    /// Whether a private key has this public key.
    pub fn have(&self, public: &PublicKey) -> bool {
        let mut halves = self.0.iter().flatten();
        halves.any(|half| half.public.identity() == public.identity())
    }

    /// The private keys that could have this public key, which none is told to have: nothing on the token tells theirs.
    /// They are those of which the pairs were made.
    pub fn untold<'o>(
        &self,
        private: &'o [Object],
        public: &PublicKey,
    ) -> impl Iterator<Item = &'o Object> {
        let with_half = private.iter().zip(&self.0);
        let is_free = !self.have(public);
        let untold =
            with_half.filter(move |(key, half)| is_free && half.is_err() && key.could_have(public));
        untold.map(|(key, _)| key)
    }

    /// The public halves, in the order of the private keys.
    ///
    /// # Errors
    /// Each is [`Error::NotSupported`] where it cannot be told, or is of a kind that we do not know.
    pub fn halves(&self) -> impl Iterator<Item = &Result<Half, Error>> {
        self.0.iter()
    }
}

impl<'o> Index<'o> {
    fn of(objects: &'o [Object]) -> Index<'o> {
        let mut index = Index {
            by_id: HashMap::new(),
            by_label: HashMap::new(),
            unknown: HashMap::new(),
        };
        for object in objects {
            match object.public_key() {
                Ok(Some(public)) => {
                    push(&mut index.by_id, &object.id[..], (object, public.clone()));
                    // That two have no label is no sign that they belong together where one has an id.
                    if object.id.is_empty() || !object.label.is_empty() {
                        push(&mut index.by_label, &object.label[..], (object, public));
                    }
                }
                Ok(None) => {}
                Err(error) => drop(index.unknown.insert(&object.id, error)),
            }
        }
        index
    }

    /// What tells the public key of a private one: of equal id, of which the label tells where there are
    /// several, or several private keys; without an id, of equal label.
    fn half_of(
        &self,
        key: &Object,
        is_only: bool,
    ) -> Result<Option<&(&'o Object, PublicKey)>, Error> {
        let found = match key.id.is_empty() {
            true => self.by_label.get(key.label.as_str()),
            false => self.by_id.get(key.id.as_slice()),
        };
        let Some(found) = found else {
            return match self.unknown.get(key.id.as_slice()) {
                Some(error) if !key.id.is_empty() => Err(error.clone()),
                _ => Ok(None),
            };
        };
        let of_label: Vec<_> = found
            .iter()
            .filter(|(half, _)| half.label == key.label)
            .collect();
        let all: Vec<_> = found.iter().collect();
        let all_of_label = of_label.len() == all.len();
        let candidates = match is_one(&all) && (all_of_label || is_only) {
            true => all,
            false => of_label,
        };
        match candidates.first() {
            None => Ok(None),
            Some(first) if is_one(&candidates) => Ok(Some(first)),
            Some(_) => Err(Error::NotSupported(
                "several public keys have its id and label, so its own cannot be told; give \
                 each pair an id of its own"
                    .into(),
            )),
        }
    }
}

/// Whether all of these tell the same public key.
fn is_one(found: &[&(&Object, PublicKey)]) -> bool {
    let mut keys = found.iter().map(|(_, public)| public);
    let first = keys.next();
    keys.all(|key| Some(key) == first)
}

fn push<K: Eq + Hash, V>(map: &mut HashMap<K, Vec<V>>, key: K, value: V) {
    map.entry(key).or_default().push(value);
}

/// Whether two objects are halves of one pair, as far as id and label tell: the same id, or the same label
/// where one has no id; of those without label neither has one.
pub(crate) fn is_pair(half: &Object, other: &Object) -> bool {
    let same_id = half.id == other.id;
    match half.id.is_empty() || other.id.is_empty() {
        true => half.label == other.label && (same_id || !half.label.is_empty()),
        false => same_id,
    }
}
