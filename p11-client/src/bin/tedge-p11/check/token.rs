//! Step `token`: the one that is meant; how its PIN stands is in `pin`.

use p11_client::Uri;
use p11_client::message::OpenKey;

use super::finding::{Finding, Looked, Outcome};
use super::pin;
use super::walk::Walk;
use crate::exit::{Refusal, quoted, this_command};
use crate::inventory::Token;

pub fn look(walk: &mut Walk<'_>) -> Looked {
    if !walk.may_list {
        return Ok(Finding::not_seen(
            "the policy lets you list no tokens: run as root for more",
        ));
    }
    let wanted = wanted(walk);
    let meant: Vec<_> = walk
        .inventory
        .initialized()
        .filter(|token| token.is_meant(&wanted))
        .cloned()
        .collect();
    let token = match meant.as_slice() {
        [] => return Err(none(walk, &wanted)),
        [token] => token.clone(),
        several => match open_one(walk, several) {
            Some(token) => token,
            None if wanted.names_token() => return Err(ambiguous(several)),
            None if walk.check.login => opened(walk, &wanted, several)?,
            None => {
                let refused = ambiguous(several);
                return Ok(Finding {
                    outcome: Outcome::NotSeen,
                    found: format!(
                        "{} tokens, none of which has accepted a PIN yet",
                        several.len()
                    ),
                    ..refused.next(format!(
                        "{} # the server looks for the key on all of them",
                        this_command("--login")
                    ))
                });
            }
        },
    };
    let found = pin::look(walk, &token);
    walk.token = Some(token);
    match replaced(walk) {
        Some(replaced) => found.map(|found| found.warn(replaced)),
        None => found,
    }
}

/// What the key's URI says, held to that of the server.
pub fn wanted(walk: &Walk<'_>) -> Uri {
    let uri = walk.session.config.key_uri.as_deref().unwrap_or("pkcs11:");
    let uri = Uri::parse(uri).unwrap_or_default();
    match scope(walk) {
        Some(scope) => uri.apply_scope(&scope).uri,
        None => uri,
    }
}

/// What of the key's URI the server's takes the place of.
fn replaced(walk: &Walk<'_>) -> Option<String> {
    let (key, scope) = (walk.session.config.key_uri.as_deref()?, scope(walk)?);
    let replaced = Uri::parse(key).ok()?.apply_scope(&scope).replaced;
    (!replaced.is_empty()).then(|| {
        format!(
            "the server's own URI ({}) takes the place of this in device.key_uri: {}",
            scope.without_query(),
            replaced.join(", ")
        )
    })
}

fn scope(walk: &Walk<'_>) -> Option<Uri> {
    Uri::parse(walk.setting("uri")?.value.as_ref()?).ok()
}

/// Of several tokens the only one that has accepted its PIN.
fn open_one(walk: &Walk<'_>, several: &[Token]) -> Option<Token> {
    let mut open = several.iter().filter(|token| walk.is_open(token.full()));
    let first = open.next()?;
    open.next().is_none().then(|| first.clone())
}

/// Of several tokens the one that the server finds the key on.
fn opened(walk: &Walk<'_>, wanted: &Uri, several: &[Token]) -> Result<Token, Finding> {
    let uri = wanted.without_query().to_string();
    let opened = walk.session.client.open_key(OpenKey::new(uri.as_str()));
    let opened = opened.map_err(Refusal::from)?;
    let is_its = |token: &&Token| {
        let uri = Uri::parse(&opened.uri);
        uri.is_ok_and(|uri| token.is_meant(&uri))
    };
    several
        .iter()
        .find(is_its)
        .cloned()
        .ok_or_else(|| ambiguous(several))
}

fn none(walk: &Walk<'_>, wanted: &Uri) -> Finding {
    let mut finding = Finding::failed(match wanted.token() {
        Some(label) => format!("there is no token {label:?}"),
        None if wanted.names_token() => format!("there is no token {}", wanted.without_query()),
        None => "no token was initialised yet".to_owned(),
    });
    if let Some(scope) = scope(walk) {
        finding = finding.detail(format!(
            "The server serves {} only (device.cryptoki.uri).",
            scope.without_query()
        ));
    }
    let mut is_offered = false;
    for token in walk.inventory.initialized() {
        is_offered = true;
        finding = finding.detail(format!("There is {:?}: {}", token.entry.label, token.uri));
    }
    let label = wanted.token().unwrap_or("device");
    let blank: Vec<_> = walk
        .inventory
        .tokens
        .iter()
        .filter(|token| !token.entry.initialized)
        .collect();
    for token in &blank {
        finding = finding.detail(format!(
            "Blank: slot {}, {}",
            token.entry.slot, token.entry.model
        ));
    }
    if is_offered {
        finding = finding.next("tedge config set device.key_uri URI # one of those above");
    }
    match blank.as_slice() {
        [] => finding,
        [_] => finding.next(format!("tedge-p11 init --label {}", quoted(label))),
        several => several.iter().fold(finding, |finding, token| {
            finding.next(format!(
                "tedge-p11 init --label {} {}",
                quoted(label),
                quoted(token.full())
            ))
        }),
    }
}

fn ambiguous(several: &[Token]) -> Finding {
    let finding = Finding::failed(format!(
        "{} tokens could be the one that is meant; name it in device.key_uri",
        several.len()
    ));
    several.iter().fold(finding, |finding, token| {
        finding.next(format!(
            "tedge config set device.key_uri {}",
            quoted(&token.uri)
        ))
    })
}
