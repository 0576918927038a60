//! Step `module`: whether the server's module is up and shows tokens.

use std::path::Path;

use p11_client::ErrorCode;

use super::finding::{Finding, Looked};
use super::walk::Walk;
use super::{module_file, surroundings};
use crate::inventory::{Inventory, may_not_list};

pub fn look(walk: &mut Walk<'_>) -> Looked {
    if walk.status.is_err() {
        // An old server tells nothing of it.
        return listed(walk).map(|()| Finding::not_seen("the server does not tell"));
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
        Ok(()) => Err(explained(walk, trouble(walk))),
        Err(failed) => Err(match walk.server_works() {
            true => failed,
            false => explained(walk, trouble(walk)),
        }),
    }
}

/// The tokens; none where this user may not list them.
fn listed(walk: &mut Walk<'_>) -> Result<(), Finding> {
    match Inventory::of_tokens(&mut walk.session) {
        Ok(inventory) => walk.inventory = inventory,
        Err(refusal) if may_not_list(&refusal) => walk.may_list = false,
        Err(refusal) => {
            return Err(Finding {
                exit: None,
                ..refusal.into()
            });
        }
    }
    Ok(())
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

/// What is to be seen beside the server goes before what it says.
fn explained(walk: &Walk<'_>, told: Finding) -> Finding {
    const LOG: &str = "journalctl -u tedge-p11-server -n 20   # the module's own lines";
    let Some(path) = walk.module_path() else {
        return told.next(LOG);
    };
    if let Some(hidden) = surroundings::hidden(walk, &path) {
        return hidden.detail(format!("The server says: {}", told.found));
    }
    // A file that cannot be loaded is a reason, too; that it can is none.
    if is_loaded(walk) {
        return closed(walk, told).next(LOG);
    }
    match module_file::judge(&path) {
        Err(reason) => reason,
        Ok(_) => closed(walk, told).next(LOG),
    }
}

fn closed(walk: &Walk<'_>, told: Finding) -> Finding {
    match surroundings::is_closed(walk) {
        true => told
            .detail("What the server's sandbox shows is not for you to see: run as root for more."),
        false => told,
    }
}

fn is_loaded(walk: &Walk<'_>) -> bool {
    let asked = walk.session.client.list_tokens();
    let misconfigured = |error: &p11_client::Error| matches!(error, p11_client::Error::Server(failure) if failure.code == ErrorCode::Misconfigured);
    !asked.is_err_and(|error| misconfigured(&error))
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
