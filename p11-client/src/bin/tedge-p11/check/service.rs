//! Step `service`: the units of systemd, the account, and why the service or its socket does not run.

use std::process::{Command, Stdio};

use nix::unistd::User;

use super::finding::{Finding, Looked};
use super::units::{SERVICE, SOCKET, Units};
use super::walk::Walk;

pub fn look(walk: &mut Walk<'_>) -> Looked {
    let Some(units) = &walk.units else {
        return Ok(Finding::not_seen("no systemd runs here"));
    };
    judge(units, walk.server_answers(), last_error)
}

/// `last_error` reads the service's log.
fn judge(units: &Units, answers: bool, last_error: fn() -> Option<String>) -> Looked {
    let (service, socket) = (&units.service, &units.socket);
    if !units.is_installed() {
        return match answers {
            true => Ok(Finding::not_seen("the server was started by other means than its unit")),
            false => Err(Finding::failed(
                "tedge-p11-server is not installed as a service: there is neither a tedge-p11-server.service nor a .socket",
            )
            .next("apt install tedge-p11-server # or start it by hand: tedge-p11-server --module-path MODULE")),
        };
    }
    let account = service.get("User");
    if !account.is_empty() && !matches!(User::from_name(account), Ok(Some(_))) {
        return Err(Finding::failed(format!(
            "there is no user {account:?}, as which the service is to run"
        ))
        .next("systemd-sysusers")
        .next(format!("systemctl restart {SOCKET} {SERVICE}")));
    }
    if [service, socket]
        .iter()
        .any(|unit| unit.get("Result").ends_with("-limit-hit"))
    {
        let failed = Finding::failed(
            "systemd has given up, since the service was started in vain too often, and has closed its socket",
        );
        return Err(with_log(failed, last_error).next(format!(
            "mend what the log says; then: systemctl reset-failed {SERVICE} {SOCKET} && systemctl start {SOCKET}"
        )));
    }
    if socket.get("Accept") == "yes" {
        return Err(Finding::failed(format!(
            "{SOCKET} has Accept=yes, so each connection would get a server of its own"
        ))
        .next(format!("systemctl edit {SOCKET} # [Socket] Accept=no"))
        .next(format!("systemctl restart {SOCKET}")));
    }
    is_active(units, last_error)?;
    Ok(running(units))
}

/// Whether the service runs, or its socket waits for somebody who connects.
fn is_active(units: &Units, last_error: fn() -> Option<String>) -> Result<(), Finding> {
    let (service, socket) = (&units.service, &units.socket);
    if service.get("ActiveState") == "failed" {
        let failed = Finding::failed(format!(
            "the service has failed ({})",
            service.get("Result")
        ));
        return Err(with_log(failed, last_error).next(format!("systemctl restart {SERVICE}")));
    }
    let (unit, name) = match socket.is_loaded() {
        true => (socket, SOCKET),
        false => (service, SERVICE),
    };
    match unit.get("ActiveState") {
        "active" => Ok(()),
        state => Err(Finding::failed(format!("{name} is {state}"))
            .next(format!("systemctl enable --now {name}"))),
    }
}

fn running(units: &Units) -> Finding {
    let service = &units.service;
    let account = match service.get("User") {
        "" => "root",
        name => name,
    };
    let state = match service.get("ActiveState") {
        "active" => format!("active since {}", service.get("ActiveEnterTimestamp")),
        _ => "starts when somebody connects".to_owned(),
    };
    let restarts = service.get("NRestarts");
    let opened = opened(units);
    let opened = match opened.is_empty() {
        true => String::new(),
        false => format!("; sandbox opens {}", opened.join(", ")),
    };
    let finding = Finding::ok(format!(
        "{state}, runs as {account}, restarted {restarts} times{opened}"
    ));
    let is_open = account == "root" && service.get("ProtectSystem") != "strict";
    match is_open {
        true => finding.warn(format!(
            "the unit {} runs the server as root, without a sandbox: a fault in a module is a fault in root",
            service.get("FragmentPath")
        )),
        false => finding,
    }
}

/// What drop-ins let the service see.
fn opened(units: &Units) -> Vec<&str> {
    let names = ["DeviceAllow", "ReadWritePaths", "BindPaths"];
    let values = names
        .iter()
        .flat_map(|name| units.service.get(name).split_whitespace());
    let paths = values.map(|value| value.trim_start_matches('-'));
    paths.filter(|path| path.starts_with('/')).collect()
}

fn with_log(finding: Finding, last_error: fn() -> Option<String>) -> Finding {
    match last_error() {
        Some(line) => finding.detail(format!("The log says: {line}")),
        None => finding.detail("Its log is not shown to you, or is empty: run as root for more."),
    }
}

fn last_error() -> Option<String> {
    let mut journalctl = Command::new("journalctl");
    journalctl.args([
        "--unit",
        SERVICE,
        "--lines",
        "100",
        "--output",
        "cat",
        "--no-pager",
    ]);
    let shown = journalctl
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let mut lines = text.lines().rev();
    lines.find(|line| line.contains("ERROR")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Outcome;

    const RUNS: &str = "Id=tedge-p11-server.service\nLoadState=loaded\nActiveState=active\nResult=success\nNRestarts=0\n\
        User=root\nProtectSystem=strict\nActiveEnterTimestamp=Fri 2026-11-27 09:12:00 UTC\n\
        EnvironmentFiles=/none.conf (ignore_errors=yes)\nDeviceAllow=/dev/tpmrm0 rw\nReadWritePaths=-/var/lib/store\n\
        ExecStart={ path=/usr/bin/s ; argv[]=/usr/bin/s --sign-only --uri pkcs11: ; ignore_errors=no ; pid=7 }\n\n\
        Id=tedge-p11-server.socket\nLoadState=loaded\nActiveState=active\nResult=success\nAccept=no\n";

    fn judged(from: &str, to: &str, answers: bool) -> Finding {
        assert!(from.is_empty() || RUNS.contains(from));
        let units = Units::parse(&RUNS.replacen(from, to, 1)).unwrap();
        let log = || Some("ERROR there is no module".to_owned());
        judge(&units, answers, log).unwrap_or_else(|failed| failed)
    }

    #[test]
    fn a_service_that_runs_is_told_with_what_its_sandbox_opens() {
        let found = judged("", "", true);
        assert_eq!(found.outcome, Outcome::Ok, "{found:?}");
        assert_eq!(
            found.found,
            "active since Fri 2026-11-27 09:12:00 UTC, runs as root, restarted 0 times; sandbox opens /dev/tpmrm0, \
             /var/lib/store"
        );
        let units = Units::parse(RUNS).unwrap();
        assert_eq!(units.arguments(), ["--sign-only", "--uri", "pkcs11:"]);
    }

    #[test]
    fn each_way_that_a_unit_can_fail_is_told_with_the_command_that_mends_it() {
        let cases = [
            (
                "Result=success",
                "Result=start-limit-hit",
                "given up",
                "reset-failed",
            ),
            (
                "active\nResult",
                "failed\nResult",
                "has failed",
                "systemctl restart",
            ),
            (
                "User=root",
                "User=nobody-of-this-name",
                "there is no user",
                "systemd-sysusers",
            ),
            ("Accept=no", "Accept=yes", "Accept=yes", "Accept=no"),
            (
                "active\nResult=success\nAccept",
                "inactive\nResult=success\nAccept",
                "tedge-p11-server.socket is inactive",
                "systemctl enable --now tedge-p11-server.socket",
            ),
        ];
        for (from, to, words, command) in cases {
            let found = judged(from, to, false);
            assert_eq!(found.outcome, Outcome::Failed, "{found:?}");
            assert!(found.found.contains(words), "{found:?}");
            assert!(
                found.next.iter().any(|next| next.contains(command)),
                "{found:?}"
            );
        }
        let nothing = Units::parse("LoadState=not-found\n\nLoadState=not-found\n").unwrap();
        let found = judge(&nothing, false, || None).unwrap_err();
        assert!(found.found.contains("is not installed"), "{found:?}");
        let found = judge(&nothing, true, || None).unwrap();
        assert_eq!(found.outcome, Outcome::NotSeen);
        let found = judged("active\nResult", "failed\nResult", false);
        assert_eq!(found.details, ["The log says: ERROR there is no module"]);
        let found = judged("ProtectSystem=strict", "ProtectSystem=no", true);
        assert_eq!(found.outcome, Outcome::Warning, "{found:?}");
    }
}
