//! Step `token`: the one that is meant, and how its PIN stands.

use p11_client::Uri;
use p11_client::message::{LoginState, OpenKey, PinOwner, PinState, Source, TokenStatus};

use super::files::quoted_path;
use super::finding::{Finding, Looked, Outcome};
use super::tpm;
use super::walk::{Walk, ago};
use crate::exit::{Exit, Refusal, quoted};
use crate::inventory::Token;
use crate::output::say;

/// How the server takes over another PIN.
const RELOAD: &str = "systemctl reload tedge-p11-server # or SIGHUP: it is tried once more";

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
                    ..refused.next(
                        "tedge-p11 check --login # the server looks for the key on all of them",
                    )
                });
            }
        },
    };
    let found = pin(walk, &token);
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

/// How the PIN stands that the server would use.
fn pin(walk: &mut Walk<'_>, token: &Token) -> Looked {
    let entry = &token.entry;
    let name = &entry.label;
    let status = walk.token_status(token.full()).cloned();
    let is_tpm = is_tpm(walk, token);
    if entry.login_required && !entry.user_pin_set {
        return Err(Finding::failed(format!(
            "the user's PIN of the token {name:?} was never set"
        ))
        .exit(Exit::Pin)
        .next(format!("tedge-p11 init --label {}", quoted(name))));
    }
    let state = status
        .as_ref()
        .map_or(LoginState::Unknown, |status| status.pin);
    let is_locked = entry.user_pin == PinState::Locked || state == LoginState::Locked;
    if is_tpm && state != LoginState::Accepted {
        not_locked_out(walk, name)?;
    }
    if is_locked || matches!(state, LoginState::Refused | LoginState::Guarded) {
        return Err(closed(walk, token, status.as_ref(), is_tpm));
    }
    if entry.user_pin == PinState::FinalTry && state != LoginState::Accepted {
        return Err(Finding::failed(format!(
            "the token {name:?} has one PIN try left, so none is sent"
        ))
        .exit(Exit::Pin)
        .next("pkcs11-tool --module MODULE --login --list-objects # with the right PIN, once"));
    }
    // tpm2-pkcs11 has blanks within.
    let model: Vec<_> = entry.model.split_whitespace().collect();
    let found = format!("{name:?} ({})", model.join(" "));
    let finding = match (&status, state) {
        (_, LoginState::NotNeeded) => Finding::ok(format!("{found}, wants no PIN")),
        // An old server does not tell.
        _ if !entry.login_required && walk.status.is_ok() => {
            Finding::ok(format!("{found}, wants no PIN"))
        }
        (Some(status), LoginState::Accepted) => {
            let since = status.since.map(|since| format!(" {}", ago(since)));
            Finding::ok(format!(
                "{found}, PIN accepted{}",
                since.unwrap_or_default()
            ))
        }
        _ if walk.check.login => {
            say(format_args!(
                "The PIN is sent to the token {name:?}, since --login was given."
            ));
            Finding::ok(found)
        }
        (Some(status), _) if status.pin_owner.is_none() => {
            return Err(Finding::failed(format!(
                "the server has no PIN for the token {name:?}"
            ))
            .exit(Exit::Pin)
            .next(set_pin(walk))
            .next(RELOAD)
            .next("tedge-p11 check --login --pin-file FILE # where tedge sends it with each request"));
        }
        _ => {
            walk.may_log_in = false;
            return Ok(Finding::not_seen(format!(
                "{found}: its PIN was not tried yet, and is not sent without --login"
            ))
            .next("tedge-p11 check --login"));
        }
    };
    walk.may_log_in = true;
    Ok(match entry.user_pin {
        PinState::Low => {
            finding.warn("at least one try of its PIN was used up since the last login")
        }
        _ => finding,
    })
}

/// The PIN was refused, is not sent, or the token takes none.
fn closed(walk: &Walk<'_>, token: &Token, status: Option<&TokenStatus>, is_tpm: bool) -> Finding {
    let name = &token.entry.label;
    let state = status.map_or(LoginState::Locked, |status| status.pin);
    let whose = match status.and_then(|status| status.pin_owner) {
        Some(PinOwner::Default) => "thin-edge's default PIN, since none is set".to_owned(),
        _ => match status.and_then(|status| status.pin_origin.as_deref()) {
            Some(origin) => format!("the PIN from {origin}"),
            None => "the PIN".to_owned(),
        },
    };
    let since = status.and_then(|status| status.since);
    let since = since.map_or_else(String::new, |since| format!(" {}", ago(since)));
    let mut finding = match state {
        LoginState::Refused => Finding::failed(format!(
            "the token {name:?} refused {whose}{since}; it is not sent again"
        )),
        LoginState::Guarded => {
            Finding::failed(format!("{whose} is not sent to the token {name:?}"))
        }
        _ => Finding::failed(format!("the PIN of the token {name:?} is locked")),
    };
    if let Some(reason) = status.and_then(|status| status.reason.as_deref()) {
        finding = finding.detail(reason);
    }
    finding = finding.exit(Exit::Pin);
    if is_tpm {
        return of_tpm(walk, finding, state);
    }
    match state {
        LoginState::Refused | LoginState::Guarded => finding.next(set_pin(walk)).next(RELOAD),
        _ => finding.next(format!("tedge-p11 change-pin --reset {}", quoted(name))),
    }
}

/// Where the PIN is set: it is on no command line, which all users see.
fn set_pin(walk: &Walk<'_>) -> String {
    let setting = walk.setting("pin");
    let file = match setting {
        Some(pin) if pin.source == Source::File => pin.place.clone(),
        Some(pin) if pin.source != Source::Default => {
            let place = pin.place.clone().unwrap_or_else(|| pin.source.to_string());
            return format!(
                "# set the user's PIN, not the security officer's, where it is set: {place}"
            );
        }
        _ => None,
    };
    let file = file.map_or_else(|| walk.config_dir.join("tedge.toml"), Into::into);
    format!(
        "sudoedit {} # [device.cryptoki] pin = \"...\", the user's, not the security officer's",
        quoted_path(&file)
    )
}

/// All tokens of a TPM share one count, which it tells to everybody.
fn not_locked_out(walk: &Walk<'_>, name: &str) -> Result<(), Finding> {
    let tcti = walk.server_variable("TPM2_PKCS11_TCTI");
    match tpm::lockout(tcti.as_deref()) {
        Ok(lockout) if lockout.is_locked || lockout.wrong >= lockout.most => Err(Finding::failed(format!(
            "the TPM of the token {name:?} has locked itself after wrong PINs or power cuts: {} of {}",
            lockout.wrong, lockout.most
        ))
        .exit(Exit::Pin)
        .detail(format!(
            "It gives one try back every {} s. Nothing is lost: do not initialise anything.",
            lockout.interval
        ))
        .next("tpm2_dictionarylockout --clear-lockout # at once")),
        _ => Ok(()),
    }
}

/// More of a PIN that a TPM does not take, where that is not for its lockout.
fn of_tpm(walk: &Walk<'_>, finding: Finding, state: LoginState) -> Finding {
    let tcti = walk.server_variable("TPM2_PKCS11_TCTI");
    match tpm::lockout(tcti.as_deref()) {
        Ok(lockout) => finding
            .detail(format!(
                "The TPM counts {} wrong PINs, and locks itself at {}.",
                lockout.wrong, lockout.most
            ))
            .next(set_pin(walk))
            .next(RELOAD),
        Err(why) if state == LoginState::Locked => finding
            .detail(format!(
                "Whether the TPM has locked itself was not seen: {why}"
            ))
            .next("tpm2_getcap properties-variable # inLockout")
            .next("tpm2_dictionarylockout --clear-lockout"),
        Err(_) => finding.next(set_pin(walk)).next(RELOAD),
    }
}

/// Of the module for TPMs, behind whatever other module.
fn is_tpm(walk: &Walk<'_>, token: &Token) -> bool {
    let module = walk.module_path().unwrap_or_default();
    let module = module.file_name().unwrap_or_default().to_string_lossy();
    module.starts_with("libtpm2_pkcs11") || token.entry.model.contains("TPM")
}
