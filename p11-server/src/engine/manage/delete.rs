//! Deleting a key pair: both halves, and nothing else.

use std::collections::HashSet;

use p11_proto::message::{DeleteKey, Deleted};
use p11_uri::{ObjectType, Uri};
use tracing::info;

use crate::engine::core::Core;
use crate::engine::find::contents::Contents;
use crate::engine::find::object::Object;
use crate::engine::find::pair::is_pair;
use crate::engine::module::Session;
use crate::error::{Error, list};
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
        self.without_retry(access, self.module.timeouts().session, |client| {
            let uri = query.in_scope()?;
            let token = self.registry.one(client, &uri)?;
            access.check(&token.info(), None)?;
            let session = self.session_to_change(client, &token, query.pins())?;
            let contents = self.contents_to_change(&session, client)?;
            let deleted = delete_through(&session, &contents, &uri, request.all, access);
            if let Ok(deleted) | Err(Error::Unfinished { deleted, .. }) = &deleted {
                self.keys.invalidate_deleted(deleted);
            }
            deleted.map(Deleted::new)
        })
    }
}

/// Deletes the key pairs of which one half matches.
fn delete_through(
    session: &Session,
    contents: &Contents,
    uri: &Uri,
    all: bool,
    access: &dyn Access,
) -> Result<Vec<String>, Error> {
    let token = &contents.token;
    let mut private = matching(contents, ObjectType::Private, uri, access)?;
    let mut public = matching(contents, ObjectType::Public, uri, access)?;
    let others = other_halves(&public, &contents.public, &contents.private);
    add(
        &mut public,
        other_halves(&private, &contents.private, &contents.public),
    );
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
            uri.shown(),
            list(&names)
        )));
    }
    for (number, (handle, _)) in halves.iter().enumerate() {
        match session.destroy_object(*handle) {
            Ok(()) => {}
            Err(error) if number == 0 => return Err(error),
            Err(error) => {
                return Err(Error::Unfinished {
                    left: names.split_off(number),
                    deleted: names,
                    cause: Box::new(error),
                });
            }
        }
    }
    if !names.is_empty() {
        info!("deleted {}", list(&names));
    }
    Ok(names)
}

/// The halves of one class that match and that the client may delete. Where it may delete none, the error is
/// about the first.
fn matching<'o>(
    contents: &'o Contents,
    class: ObjectType,
    uri: &Uri,
    access: &dyn Access,
) -> Result<Vec<&'o Object>, Error> {
    let all = match class {
        ObjectType::Private => &contents.private,
        _ => &contents.public,
    };
    let token = contents.token.info();
    let check = |half: &Object| access.check(&token, Some(&half.info_as(class)));
    let matching = |half: &&Object| uri.matches_key(&half.label, &half.id);
    let mut halves: Vec<_> = all.iter().filter(matching).collect();
    let first = halves.first().map(|half| check(half));
    halves.retain(|half| check(half).is_ok());
    match first {
        Some(Err(error)) if halves.is_empty() => Err(error),
        _ => Ok(halves),
    }
}

/// What belongs to these halves among those of the other class; where several could, the ones of
/// equal label. What has a half of its own, of equal label, is that one's.
fn other_halves<'o>(
    halves: &[&Object],
    of_class: &[Object],
    among: &'o [Object],
) -> Vec<&'o Object> {
    let mut others = Vec::new();
    let mut seen = HashSet::new();
    // Of those with the same names each has the same others.
    for half in halves {
        if !seen.insert((&half.id, &half.label)) {
            continue;
        }
        let mut found: Vec<_> = among.iter().filter(|other| is_pair(half, other)).collect();
        let has_its_own = |other: &Object| {
            let mut its = of_class.iter().filter(|its| is_pair(its, other));
            its.any(|its| its.label == other.label)
        };
        let several = found.len() > 1;
        found.retain(|other| other.label == half.label || !(several || has_its_own(other)));
        add(&mut others, found);
    }
    others
}

fn add<'o>(halves: &mut Vec<&'o Object>, more: Vec<&'o Object>) {
    let mut known: HashSet<_> = halves.iter().map(|half| half.handle.handle()).collect();
    halves.extend(
        more.into_iter()
            .filter(|half| known.insert(half.handle.handle())),
    );
}
