//! Whose PIN the server has for a token and what the token said to it; where it takes none, how a TPM counts.

use p11_client::message::{LoginState, PinOwner, PinState, Source, TokenStatus};

use super::files::quoted_path;
use super::finding::{Finding, Looked};
use super::tpm;
use super::walk::{Walk, ago};
use crate::exit::{Exit, quoted, this_command};
use crate::inventory::Token;
use crate::output::say;

/// How the server takes over another PIN.
const RELOAD: &str = "systemctl reload tedge-p11-server # or SIGHUP: it is tried once more";

/// How the PIN stands that the server would use.
pub fn look(walk: &mut Walk<'_>, token: &Token) -> Looked {
    let status = walk.token_status(token.full()).cloned();
    let state = status
        .as_ref()
        .map_or(LoginState::Unknown, |status| status.pin);
    is_taken(walk, token, status.as_ref(), state)?;
    let entry = &token.entry;
    let name = &entry.label;
    // tpm2-pkcs11 has blanks within.
    let model: Vec<_> = entry.model.split_whitespace().collect();
    let found = format!("{name:?} ({})", model.join(" "));
    // An old server does not tell.
    let wants_none = !entry.login_required && walk.status.is_ok();
    let finding = match &status {
        _ if wants_none || state == LoginState::NotNeeded => {
            Finding::ok(format!("{found}, wants no PIN"))
        }
        Some(status) if state == LoginState::Accepted => {
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
        Some(status) if status.pin_owner.is_none() => {
            return Err(
                Finding::failed(format!("the server has no PIN for the token {name:?}"))
                    .exit(Exit::Pin)
                    .next(set_pin(walk))
                    .next(RELOAD)
                    .next(format!(
                        "{} # where tedge sends it with each request",
                        this_command("--login --pin-file FILE")
                    )),
            );
        }
        _ => {
            walk.may_log_in = false;
            return Ok(Finding::not_seen(format!(
                "{found}: its PIN was not tried yet, and is not sent without --login"
            ))
            .next(this_command("--login")));
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

/// Whether the token takes the PIN, as far as is known without sending it.
fn is_taken(
    walk: &Walk<'_>,
    token: &Token,
    status: Option<&TokenStatus>,
    state: LoginState,
) -> Result<(), Finding> {
    let entry = &token.entry;
    let name = &entry.label;
    if entry.login_required && !entry.user_pin_set {
        return Err(Finding::failed(format!(
            "the user's PIN of the token {name:?} was never set"
        ))
        .exit(Exit::Pin)
        .next(format!("tedge-p11 init --label {}", quoted(name))));
    }
    if state == LoginState::Accepted {
        return Ok(());
    }
    let is_tpm = is_tpm(walk, token);
    if is_tpm {
        not_locked_out(walk, name)?;
    }
    let is_closed = matches!(
        state,
        LoginState::Refused | LoginState::Guarded | LoginState::Locked
    );
    if is_closed || entry.user_pin == PinState::Locked {
        return Err(closed(walk, token, status, is_tpm));
    }
    if entry.user_pin == PinState::FinalTry {
        return Err(Finding::failed(format!(
            "the token {name:?} has one PIN try left, so none is sent"
        ))
        .exit(Exit::Pin)
        .next("pkcs11-tool --module MODULE --login --list-objects # with the right PIN, once"));
    }
    Ok(())
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
                "The TPM has counted {} of the {} wrong PINs at which it locks itself.",
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
