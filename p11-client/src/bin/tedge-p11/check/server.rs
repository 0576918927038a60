//! Step `server`: what answers at the socket, how old it is, and what it lets this user do.

use p11_client::Error;
use p11_client::message::Status;

use super::files::{quoted_path, user};
use super::finding::{Finding, Looked};
use super::walk::{Walk, span};

/// What somebody needs who signs and lists.
const WANTED: [&str; 2] = ["sign", "list"];

pub fn look(walk: &mut Walk<'_>) -> Looked {
    match &walk.status {
        Ok(status) => Ok(told(status)),
        Err(Error::TooOld { .. }) => {
            let found = "an old tedge-p11-server, of thin-edge 1.7 to 2.0";
            Ok(Finding::ok(found)
                .warn("signing works, but it tells neither how its module nor how its PIN stands"))
        }
        Err(Error::Server(failure)) => Err(Finding::failed(failure.to_string())),
        Err(error @ Error::Deadline { .. }) => Err(Finding::failed(error.to_string())
            .detail(
                "It took the connection and said nothing: another program, or a server that hangs.",
            )
            .next("journalctl -u tedge-p11-server -n 20")),
        Err(error) => Err(Finding::failed(error.to_string()).next(format!(
            "fuser -v {}   # who listens there",
            quoted_path(&walk.socket)
        ))),
    }
}

fn told(status: &Status) -> Finding {
    let account = status.account.as_ref().map(|account| {
        let name = account.user.clone().unwrap_or_else(|| user(account.uid));
        format!(", runs as {name}")
    });
    let uptime = status.uptime.map(|uptime| format!(" for {}", span(uptime)));
    let finding = Finding::ok(format!(
        "{}, protocol 1{}{}",
        status.server,
        account.unwrap_or_default(),
        uptime.unwrap_or_default()
    ));
    let Some(allowed) = &status.allowed else {
        return finding;
    };
    let has = |operation: &str| allowed.iter().any(|known| known == operation);
    let missing: Vec<_> = WANTED
        .into_iter()
        .filter(|operation| !has(operation))
        .collect();
    match missing.is_empty() {
        true => finding,
        false => finding.warn(format!(
            "the policy lets you {}, not {}",
            match allowed.is_empty() {
                true => "do nothing".to_owned(),
                false => allowed.join(", "),
            },
            missing.join(" and ")
        )),
    }
}
