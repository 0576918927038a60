//! Which halves of key pairs belong together: by id and label, which are what users made of them.

use cryptoki::object::ObjectClass;
use cryptoki::session::Session;
use p11_proto::spki::PublicKey;

use super::object::Object;
use crate::error::Error;

/// Adds to `halves`, which are of this class, those that belong to the `others`.
///
/// # Errors
/// What the module said.
pub(crate) fn add_other_halves(
    session: &Session,
    class: ObjectClass,
    others: &[Object],
    halves: &mut Vec<Object>,
) -> Result<(), Error> {
    for other in others {
        for half in other_halves(session, class, other)? {
            if !halves.iter().any(|known| known.handle == half.handle) {
                halves.push(half);
            }
        }
    }
    Ok(())
}

/// Those of the same id, of which the label tells where there are several; else those of the same label.
fn other_halves(session: &Session, class: ObjectClass, of: &Object) -> Result<Vec<Object>, Error> {
    let mut found = match of.id.is_empty() {
        true => Vec::new(),
        false => Object::find(session, class, None, Some(&of.id))?,
    };
    let of_its_label = |half: &Object| half.label == of.label;
    if found.len() > 1 && found.iter().any(of_its_label) {
        found.retain(of_its_label);
    }
    if found.is_empty() && !of.label.is_empty() {
        found = Object::find(session, class, Some(&of.label), None)?;
    }
    Ok(found)
}

/// The public key of a private one: from itself, else from the public key, else the certificate, of
/// equal id. Where several keys have that id, the label tells which is its own.
///
/// # Errors
/// [`Error::NotSupported`] where it cannot be told, or is of a kind that we do not know.
pub(crate) fn public_half(session: &Session, private: &Object) -> Result<PublicKey, Error> {
    if let Some(public) = private.public_key()? {
        return Ok(public);
    }
    let id = Some(private.id.as_slice()).filter(|id| !id.is_empty());
    let label = Some(private.label.as_str()).filter(|_| id.is_none());
    let find = |class| Object::find(session, class, label, id);
    for class in [ObjectClass::PUBLIC_KEY, ObjectClass::CERTIFICATE] {
        let mut halves = find(class)?;
        let mut keys = distinct(&halves)?;
        let of_its_label = |half: &Object| half.label == private.label;
        if keys.len() > 1
            || !halves.iter().all(of_its_label) && find(ObjectClass::PRIVATE_KEY)?.len() > 1
        {
            halves.retain(of_its_label);
            keys = distinct(&halves)?;
        }
        match keys.as_slice() {
            [] => {}
            [key] => return Ok(key.clone()),
            _ => {
                return Err(Error::NotSupported(
                    "several public keys have its id and label, so its own cannot be told; give \
                     each pair an id of its own"
                        .into(),
                ));
            }
        }
    }
    Err(Error::NotSupported(
        "its public key is nowhere on the token; store the public key or the certificate with the \
         same id and label"
            .into(),
    ))
}

/// The public keys that these objects tell.
fn distinct(halves: &[Object]) -> Result<Vec<PublicKey>, Error> {
    let mut keys = Vec::new();
    for half in halves {
        if let Some(key) = half.public_key()?
            && !keys.contains(&key)
        {
            keys.push(key);
        }
    }
    Ok(keys)
}
