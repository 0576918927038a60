//! Step `configuration`: tedge.toml, who can read it, what it says, and where each setting of the server comes from.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use p11_client::message::{Setting, Source};
use p11_client::{Mode, Uri};

use super::files::{closed_folder, may, owner_and_mode, quoted_path, user};
use super::finding::{Finding, Looked};
use super::judgement::Judgement;
use super::walk::Walk;

/// How the server takes over what was mended.
const MENDED: &str =
    "systemctl reload tedge-p11-server # once it is mended (SIGHUP, where it is no service)";

pub fn look(walk: &mut Walk<'_>) -> Looked {
    let file = walk.config_dir.join("tedge.toml");
    let is_there = is_readable(walk, &file)?;
    if let Some(error) = &walk.config_trouble
        && is_there != Seen::Closed
    {
        return Err(Finding::failed(error.to_string()).next(MENDED));
    }
    judged(walk)?;
    let uri = key_uri(walk)?;
    let mut finding = match is_there {
        Seen::Closed => Finding::not_seen(format!(
            "{} is not for you to read: run as root for more",
            file.display()
        )),
        Seen::Absent => Finding::ok(summary(
            walk,
            &format!("no {}: flags and variables alone", file.display()),
        )),
        Seen::Read => Finding::ok(summary(walk, &file.display().to_string())),
    };
    finding.warnings.extend(uri);
    if walk.session.config.mode != Mode::Socket && is_there == Seen::Read && walk.is_for_tedge() {
        finding = finding
            .warn(match walk.session.config.mode {
                Mode::Module => {
                    "device.cryptoki.mode is \"module\": tedge loads the module itself, and will not ask this server"
                }
                _ => "device.cryptoki.mode is \"off\": tedge will not ask this server",
            })
            .next("tedge config set device.cryptoki.mode socket");
    }
    if let Some(warning) = other_socket(walk) {
        finding = finding.warn(warning);
    }
    let remarks = walk.judgement.as_ref().map(|judgement| &judgement.warnings);
    for remark in remarks.into_iter().flatten() {
        finding = finding.warn(&remark.message);
    }
    Ok(finding)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Read,
    Absent,
    Closed,
}

/// Whether the file is there, and whether this user and the server's can read it.
fn is_readable(walk: &Walk<'_>, file: &Path) -> Result<Seen, Finding> {
    let metadata = match fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Seen::Absent),
        Err(_) => return Ok(Seen::Closed),
    };
    if metadata.is_file()
        && let Some(uid) = account(walk)
    {
        let name = user(uid);
        let unreadable = |what: String, step: String| {
            Finding::failed(format!(
                "{what} cannot be read by {name}, as which the server runs"
            ))
            .next(step)
        };
        if let Some((folder, metadata)) = closed_folder(uid, file) {
            let what = format!(
                "the folder {} ({})",
                folder.display(),
                owner_and_mode(&metadata)
            );
            return Err(unreadable(
                what,
                format!("chmod o+x {}", quoted_path(folder)),
            ));
        }
        if !may(uid, &metadata, 4) {
            let what = format!("{} ({})", file.display(), owner_and_mode(&metadata));
            let step = match metadata.mode() & 0o400 == 0 {
                true => format!("chmod u+r {}", quoted_path(file)),
                false => format!("chown {name} {}", quoted_path(file)),
            };
            return Err(unreadable(what, step));
        }
    }
    match fs::File::open(file) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(Seen::Closed),
        _ => Ok(Seen::Read),
    }
}

/// As which user the server runs, or would run.
fn account(walk: &Walk<'_>) -> Option<u32> {
    let told = walk
        .status
        .as_ref()
        .ok()
        .and_then(|status| status.account.as_ref());
    let of_units = || walk.units.as_ref()?.account();
    told.map(|account| account.uid).or_else(of_units)
}

/// What the server itself says of the configuration.
fn judged(walk: &Walk<'_>) -> Result<(), Finding> {
    let judgement = walk.judgement.as_ref();
    let mut errors = judgement.into_iter().flat_map(Judgement::errors);
    let Some(first) = errors.next() else {
        return Ok(());
    };
    let failed = Finding::failed(&first.message);
    let failed = errors.fold(failed, |failed, error| failed.detail(&error.message));
    Err(failed.next(MENDED))
}

/// The URI of the key, and what is odd about it.
fn key_uri(walk: &Walk<'_>) -> Result<Option<String>, Finding> {
    let Some(text) = walk.session.config.key_uri.as_deref() else {
        return Ok(None);
    };
    let uri = Uri::parse(text)
        .map_err(|error| Finding::failed(format!("device.key_uri cannot be used: {error}")))?;
    match (uri.hint(), uri.vendor_path().next()) {
        (Some(hint), Some(_)) => Err(Finding::failed(format!("device.key_uri: {hint}"))),
        (hint, _) => Ok(hint.map(|hint| format!("device.key_uri: {hint}"))),
    }
}

/// Where client and server have been told of different sockets.
fn other_socket(walk: &Walk<'_>) -> Option<String> {
    let ours = walk.session.config.socket_path.as_ref()?;
    let setting = walk.setting("socket-path")?;
    let theirs = setting.value.as_deref()?;
    (Path::new(theirs) != ours).then(|| {
        format!(
            "device.cryptoki.socket_path is {}, and the server listens on {theirs} ({}), which is the one that counts",
            ours.display(),
            origin(setting)
        )
    })
}

fn summary(walk: &Walk<'_>, file: &str) -> String {
    let pin = match walk.setting("pin") {
        None => String::new(),
        Some(pin) if pin.source == Source::Default => {
            "; no PIN is set, thin-edge's default is tried".to_owned()
        }
        Some(pin) => format!("; PIN from {}", origin(pin)),
    };
    format!("{file}{pin}; socket {}", walk.socket.display())
}

/// Where a setting comes from: `credential "pin"`, `/etc/tedge/tedge.toml line 7`.
fn origin(setting: &Setting) -> String {
    let place = setting.place.as_deref().unwrap_or_default();
    let line = setting
        .line
        .map_or_else(String::new, |line| format!(" line {line}"));
    match setting.source {
        Source::Credential => "credential \"pin\"".to_owned(),
        Source::ServiceManager => "the socket's unit".to_owned(),
        Source::Uri => "the server's URI".to_owned(),
        source if place.is_empty() => source.to_string(),
        _ => format!("{place}{line}"),
    }
}
