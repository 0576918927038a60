//! Deleting a key pair: both halves, and nothing else.

use cryptoki::object::ObjectClass;
use cryptoki::session::Session;
use p11_proto::message::{DeleteKey, Deleted};
use p11_uri::{ObjectType, Uri};
use tracing::info;

use crate::engine::core::Core;
use crate::engine::find::object::Object;
use crate::engine::token::Token;
use crate::error::Error;
use crate::service::Access;

impl Core {
    /// Deletes a key pair, or with `all` set every one that matches.
    pub fn delete_key(&self, request: &DeleteKey, access: &dyn Access) -> Result<Deleted, Error> {
        let query = self.query(&request.uri, request.pin.as_ref(), access)?;
        if !Uri::parse(&request.uri)?.names_object() {
            return Err(Error::BadRequest(
                "which key is to be deleted? name it by object=… or id=… in the URI".into(),
            ));
        }
        let deleted = self.once(self.module.timeouts().request, |call, _| {
            let uri = query.in_scope()?;
            let token = self.tokens.one(call, &uri, access)?;
            access.check(&token.info(), None)?;
            let session = self.guard.log_in_to_write(call, &token, query.pins())?;
            let deleted = delete_through(&session, &token, &uri, request.all, access)?;
            session.finish();
            Ok(deleted)
        });
        self.keys.invalidate_handles();
        deleted.map(Deleted::new)
    }
}

/// Deletes the key pairs of which one half matches.
fn delete_through(
    session: &Session,
    token: &Token,
    uri: &Uri,
    all: bool,
    access: &dyn Access,
) -> Result<Vec<String>, Error> {
    let all_private = Object::find(session, ObjectClass::PRIVATE_KEY, None, None)?;
    let all_public = Object::find(session, ObjectClass::PUBLIC_KEY, None, None)?;
    let matching = |half: &&Object| uri.matches_key(&half.label, &half.id);
    let mut private: Vec<&Object> = all_private.iter().filter(matching).collect();
    let mut public: Vec<&Object> = all_public.iter().filter(matching).collect();
    let others = other_halves(&public, &all_private);
    add(&mut public, other_halves(&private, &all_public));
    add(&mut private, others);

    let one_pair = match (private.as_slice(), public.as_slice()) {
        ([private], [public]) => is_pair(private, public),
        (private, public) => private.len() + public.len() <= 1,
    };
    let private = private.iter().map(|half| (half, ObjectType::Private));
    let halves: Vec<_> = private
        .chain(public.iter().map(|half| (half, ObjectType::Public)))
        .map(|(half, object_type)| (half.handle, half.info_as(object_type)))
        .collect();
    for (_, info) in &halves {
        access.check(&token.info(), Some(info))?;
    }
    let names = halves
        .iter()
        .map(|(_, info)| Uri::of_object(&token.info(), info).to_string());
    let mut names: Vec<String> = names.collect();
    if !one_pair && !all {
        return Err(Error::AmbiguousKey(format!(
            "several keys match {}, and none was deleted: {}",
            uri.without_query(),
            names.join(", ")
        )));
    }
    for (number, (handle, _)) in halves.iter().enumerate() {
        match session.destroy_object(*handle) {
            Ok(()) => {}
            Err(error) if number == 0 => return Err(error.into()),
            Err(error) => {
                return Err(Error::Unfinished {
                    left: names.split_off(number),
                    deleted: names,
                    cause: Box::new(error.into()),
                });
            }
        }
    }
    if !names.is_empty() {
        info!("deleted {}", names.join(", "));
    }
    Ok(names)
}

/// What belongs to these halves among those of the other class; where several could, the ones of
/// equal label.
fn other_halves<'o>(halves: &[&Object], among: &'o [Object]) -> Vec<&'o Object> {
    let mut others = Vec::new();
    for half in halves {
        let mut found: Vec<_> = among.iter().filter(|other| is_pair(half, other)).collect();
        if found.len() > 1 {
            found.retain(|other| other.label == half.label);
        }
        add(&mut others, found);
    }
    others
}

/// Halves of one pair have the same id, or the same label where one has no id.
fn is_pair(half: &Object, other: &Object) -> bool {
    match half.id.is_empty() || other.id.is_empty() {
        true => half.label == other.label,
        false => half.id == other.id,
    }
}

fn add<'o>(halves: &mut Vec<&'o Object>, more: Vec<&'o Object>) {
    for half in more {
        if !halves.iter().any(|known| known.handle == half.handle) {
            halves.push(half);
        }
    }
}
