//! A URI enters, the key pair that it names is deleted: both halves, and nothing else.

use cryptoki::object::ObjectClass;
use cryptoki::session::Session;
use p11_proto::message::DeleteKey;
use p11_uri::{ObjectType, Uri};
use tracing::info;

use super::objects::Object;
use super::session::Token;
use super::{DEADLINE, Engine};
use crate::error::Error;
use crate::service::Access;

impl Engine {
    pub(super) fn remove_key(
        &self,
        request: &DeleteKey,
        several: bool,
        access: &dyn Access,
    ) -> Result<Vec<String>, Error> {
        let asked = self.asked(&request.uri, request.pin.as_ref(), access)?;
        if !Uri::parse(&request.uri)?.names_object() {
            return Err(Error::BadRequest(
                "which key is to be deleted? name it by object=… or id=… in the URI".into(),
            ));
        }
        let deleted = self.once(DEADLINE, |call, _| {
            let uri = asked.in_scope()?;
            let token = self.tokens.one(call, &uri, access)?;
            access.check(&token.facts(), None)?;
            let session = self.guard.log_in_to_write(call, &token, asked.pins())?;
            let deleted = remove_through(&session, &token, &uri, several, access)?;
            session.finish();
            Ok(deleted)
        });
        self.memory.forget_handles();
        deleted
    }
}

/// Deletes the key pairs of which one half matches.
fn remove_through(
    session: &Session,
    token: &Token,
    uri: &Uri,
    several: bool,
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
        .map(|(half, object_type)| (half.handle, half.facts_as(object_type)))
        .collect();
    for (_, facts) in &halves {
        access.check(&token.facts(), Some(facts))?;
    }
    let names = halves
        .iter()
        .map(|(_, facts)| Uri::of_object(&token.facts(), facts).to_string());
    let mut names: Vec<String> = names.collect();
    if !one_pair && !several {
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
