//! Step `module`: whether the server's module is up and shows tokens.

use std::path::Path;

use super::finding::{Finding, Looked};
use super::walk::Walk;
use super::{module_file, surroundings};
use crate::exit::Refusal;
use crate::inventory::{Inventory, may_not_list};

const LOG: &str = "journalctl -u tedge-p11-server -n 20   # the module's own lines";

pub fn look(walk: &mut Walk<'_>) -> Looked {
    if walk.status.is_err() {
        // An old server tells nothing of it.
        let listed = listed(walk).map_err(failure);
        return listed.map(|()| Finding::not_seen("the server does not tell"));
    }
    // A scan of the slots, after which the status is of now.
    let listed = listed(walk);
    walk.renew_status();
    let shows_slots = !walk.inventory.tokens.is_empty();
    let hung = walk.details().and_then(|details| details.hung.first());
    let hung = hung.map(|call| {
        let on = call.token.as_ref().map(|token| format!(" on {token}"));
        format!(
            "{}{} has not returned for {} s",
            call.function,
            on.unwrap_or_default(),
            call.seconds
        )
    });
    if let Some(hung) = hung {
        let failed = Finding::failed(hung);
        return Err(failed
            .detail("At twice its limit the server ends and is started anew by systemd.")
            .next("journalctl -u tedge-p11-server -n 20"));
    }
    match listed {
        Ok(()) if walk.server_works() || shows_slots => Ok(Finding::ok(summary(walk))),
        Err(refusal) if walk.server_works() => Err(failure(refusal)),
        Err(refusal) if refusal.code == "Misconfigured" => Err(not_loaded(walk)),
        _ => Err(not_ready(walk)),
    }
}

/// The tokens; none where this user may not list them.
fn listed(walk: &mut Walk<'_>) -> Result<(), Refusal> {
    match Inventory::of_tokens(&mut walk.session) {
        Ok(inventory) => walk.inventory = inventory,
        Err(refusal) if may_not_list(&refusal) => walk.may_list = false,
        Err(refusal) => return Err(refusal),
    }
    Ok(())
}

/// Whatever its code, it is the module's.
fn failure(refusal: Refusal) -> Finding {
    Finding {
        exit: None,
        ..refusal.into()
    }
}

/// What the server says of it.
fn trouble(walk: &Walk<'_>) -> Finding {
    match &walk.status {
        Ok(status) => Finding::failed(match &status.trouble {
            Some(trouble) => trouble.clone(),
            None => "the server cannot use its module, and does not say why".to_owned(),
        }),
        Err(_) => Finding::failed("the server does not answer any more"),
    }
}

/// The file says more than the server does, which only knows that dlopen(3) failed.
fn not_loaded(walk: &Walk<'_>) -> Finding {
    let judged = walk.module_path().map(|path| module_file::judge(&path));
    match judged {
        Some(Err(reason)) => reason,
        _ => trouble(walk).next(LOG),
    }
}

/// What is to be seen beside the server goes before what it says.
fn not_ready(walk: &Walk<'_>) -> Finding {
    let told = trouble(walk);
    let hidden = walk
        .module_path()
        .and_then(|path| surroundings::hidden(walk, &path));
    match hidden {
        Some(hidden) => hidden.detail(format!("The server says: {}", told.found)),
        None if surroundings::is_closed(walk) => told
            .detail("What the server's sandbox shows is not for you to see: run as root for more.")
            .next(LOG),
        None => told.next(LOG),
    }
}

/// "libtpm2_pkcs11.so 1.9, ready"
fn summary(walk: &Walk<'_>) -> String {
    let Some(details) = walk.details() else {
        return "ready".to_owned();
    };
    let module = &details.module;
    let file = Path::new(&module.path)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let version = module.version.as_ref().map(|version| format!(" {version}"));
    format!("{file}{}, ready", version.unwrap_or_default())
}
