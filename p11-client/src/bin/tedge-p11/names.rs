//! What a name on the command line means: a label, `token/label`, or a PKCS#11 URI. Never a guess among several.

use std::fmt::Display;

use p11_uri::Uri;

use crate::exit::{Exit, Refusal, renamed_command};
use crate::inventory::{Inventory, Key, Token, may_not_list};
use crate::output::{printable, say};
use crate::session::Session;

/// Things that are offered instead, at most.
const OFFERED: usize = 8;

/// A name as it was written.
#[derive(Clone, Debug)]
pub enum Name {
    Uri(Box<Uri>),
    Text(String),
}

impl Name {
    /// A name from the command line, which every user of the machine can see there.
    pub fn parse(text: &str) -> Result<Name, Refusal> {
        match Name::of_file(text)? {
            Name::Uri(uri) if uri.pin_value().is_some() => Err(Refusal::usage(
                "a PIN in a URI on the command line is seen by every user: take it out, and give it by --pin-file FILE or --pin-env NAME",
            )),
            name => Ok(name),
        }
    }

    /// A name from a configuration, which may hold a PIN.
    fn of_file(text: &str) -> Result<Name, Refusal> {
        if !text.to_ascii_lowercase().starts_with("pkcs11:") {
            return Ok(Name::Text(text.to_owned()));
        }
        let unusable =
            |cause: &dyn Display| Refusal::usage(format_args!("the URI cannot be used: {cause}"));
        let uri = Uri::parse(text).map_err(|e| unusable(&e))?;
        match uri.hint() {
            Some(hint) if uri.vendor_path().next().is_some() => Err(unusable(&hint)),
            _ => Ok(Name::Uri(Box::new(uri))),
        }
    }
}

/// The one key that is named; without a name the configured one (`device.key_uri`), or the only one that there is.
///
/// Where that is not one key, the command line is offered with each name that could be meant.
pub fn find_key(session: &mut Session, written: Option<&str>) -> Result<Key, Refusal> {
    let name = match (written, session.config.key_uri.as_deref()) {
        (Some(name), _) => Name::parse(name)?,
        (None, Some(uri)) => Name::of_file(uri)?,
        (None, None) => Name::Uri(Box::default()),
    };
    let listed = match &name {
        Name::Uri(uri) => Inventory::of_keys(session, uri, None),
        Name::Text(label) => Inventory::of_keys(session, &Uri::default(), Some(label)),
    };
    let inventory = match listed {
        Err(refusal) if may_not_list(&refusal) => return unlisted(&name).ok_or(refusal),
        listed => listed?,
    };
    let found = keys(&inventory, &name);
    match found.as_slice() {
        [key] => Ok((*key).clone()),
        [] => Err(match &name {
            Name::Uri(uri) if !inventory.initialized().any(|token| token.is_meant(uri)) => {
                no_token(uri)
            }
            _ => no_key(inventory, &name, written),
        }),
        several => Err(offer(
            Refusal::new(
                Exit::NotFound,
                "AmbiguousKey",
                format_args!("{} keys{}; which one?", several.len(), on_token(several)),
            ),
            several,
            &inventory,
            written,
        )),
    }
}

/// The one token that is named, among those that are no longer blank; without a name the only one.
pub fn find_token<'a>(
    inventory: &'a Inventory,
    written: Option<&str>,
    flag: &str,
) -> Result<&'a Token, Refusal> {
    let name = written.map(Name::parse).transpose()?;
    let is_meant = |token: &&Token| match &name {
        None => true,
        Some(Name::Uri(uri)) => token.is_meant(uri),
        Some(Name::Text(label)) => token.entry.label == *label,
    };
    let found: Vec<_> = inventory.initialized().filter(is_meant).collect();
    let mut refusal = match found.as_slice() {
        [token] => return Ok(token),
        [] => Refusal::new(
            Exit::NotFound,
            "TokenNotFound",
            match &name {
                None => "there is no token that is ready for use".to_owned(),
                Some(name) => format!("there is no token {}", shown(name)),
            },
        ),
        several => Refusal::new(
            Exit::NotFound,
            "AmbiguousToken",
            format_args!("{} tokens; which one?", several.len()),
        ),
    };
    let offered: Vec<_> = match found.is_empty() {
        true => inventory.initialized().collect(),
        false => found,
    };
    for token in offered.iter().take(OFFERED) {
        refusal = refusal.next(renamed_command(written, &token.uri, flag));
    }
    match offered.is_empty() {
        true => Err(refusal.next("tedge-p11 init --label device")),
        false => Err(refusal),
    }
}

/// The keys that a name means. A label that holds a slash is looked for whole first.
pub fn keys<'a>(inventory: &'a Inventory, name: &Name) -> Vec<&'a Key> {
    let text = match name {
        Name::Uri(uri) => {
            // Which tokens it means was asked before.
            let keys = inventory.keys.iter();
            return keys
                .filter(|key| uri.matches_key(&key.label, &key.id))
                .collect();
        }
        Name::Text(text) => text,
    };
    let of = |token: Option<&str>, label: &str| -> Vec<&Key> {
        let keys = inventory.keys.iter().filter(|key| key.label == label);
        keys.filter(|key| token.is_none_or(|token| key.token == token))
            .collect()
    };
    let whole = of(None, text);
    if !whole.is_empty() {
        return whole;
    }
    let slashes = text.match_indices('/').map(|(at, _)| text.split_at(at));
    slashes
        .flat_map(|(token, label)| of(Some(token), label.trim_start_matches('/')))
        .collect()
}

/// Where nothing may be listed, the server decides on the name.
fn unlisted(name: &Name) -> Option<Key> {
    let uri = match name {
        Name::Uri(uri) => uri,
        Name::Text(_) => return None,
    };
    say("You may not list keys here, so nobody can tell whether this URI means one key alone.");
    Some(Key::unlisted(uri))
}

fn no_token(uri: &Uri) -> Refusal {
    let what = match uri.names_token() {
        true => format!("there is no token {}", uri.without_query()),
        false => "there is no token that is ready for use".to_owned(),
    };
    Refusal::new(Exit::NotFound, "TokenNotFound", what).next("tedge-p11 tokens")
}

fn no_key(mut inventory: Inventory, name: &Name, written: Option<&str>) -> Refusal {
    // It may lie where nothing could be seen.
    if let Some((token, trouble)) = inventory.troubles.pop() {
        return Refusal {
            message: format!(
                "the keys on token \"{token}\" cannot be listed: {}",
                trouble.message
            ),
            ..trouble
        };
    }
    let message = match name {
        Name::Uri(uri) if **uri == Uri::default() => "there is no key yet".to_owned(),
        Name::Uri(uri) => match uri.hint() {
            Some(hint) => format!("there is no key {}: {hint}", shown(name)),
            None => format!("there is no key {}", shown(name)),
        },
        Name::Text(_) => format!("there is no key {}", shown(name)),
    };
    let refusal = Refusal::new(Exit::NotFound, "KeyNotFound", message);
    let others: Vec<_> = inventory.keys.iter().collect();
    match others.is_empty() {
        true => refusal.next("tedge-p11 create-key device-key"),
        false => offer(refusal, &others, &inventory, written),
    }
}

/// The same command line with the name of each key.
fn offer(
    mut refusal: Refusal,
    keys: &[&Key],
    inventory: &Inventory,
    written: Option<&str>,
) -> Refusal {
    for key in keys.iter().take(OFFERED) {
        let same = inventory
            .keys
            .iter()
            .filter(|other| other.label == key.label);
        let is_plain = !key.label.is_empty() && !key.label.starts_with('-') && same.count() == 1;
        let name = match is_plain && printable(&key.label) == key.label {
            true => &key.label,
            false => &key.uri,
        };
        refusal = refusal.next(format!(
            "{}   # {}",
            renamed_command(written, name, ""),
            key.kind()
        ));
    }
    match keys.len() > OFFERED {
        true => refusal.next("tedge-p11 keys"),
        false => refusal,
    }
}

/// Where all of them are.
fn on_token(keys: &[&Key]) -> String {
    match keys {
        [first, rest @ ..] if rest.iter().all(|key| key.token == first.token) => {
            format!(" on token \"{}\"", printable(&first.token))
        }
        _ => String::new(),
    }
}

fn shown(name: &Name) -> String {
    match name {
        Name::Uri(uri) => uri.without_query().to_string(),
        Name::Text(text) => format!("\"{}\"", printable(text)),
    }
}
