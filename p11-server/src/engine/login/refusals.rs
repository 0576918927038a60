//! The file in which refused PINs outlive the process: salted digests, for a folder of the machine's memory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::digests::Salted;
use super::known::{Counter, Known};
use super::pin_guard::PinGuard;
use super::states::Role;

const FILE: &str = "refused-pins";

/// The first line of the file.
const VERSION: &str = "tedge-p11-server refused PINs 1";

/// Where refusals are kept.
pub(super) struct RefusalsFile(PathBuf);

impl RefusalsFile {
    pub fn new(folder: &Path) -> RefusalsFile {
        RefusalsFile(folder.join(FILE))
    }

    /// What an earlier process has left, `None` where that is nothing. A file that cannot be read is as good as none.
    pub fn load(&self) -> Option<PinGuard> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.warn(&format!(
                    "cannot be read ({error}), so PINs refused earlier may be tried again"
                ));
                return None;
            }
        };
        let read = read(&text);
        if read.is_none() {
            self.warn("is broken and starts anew, so PINs refused earlier may be tried again");
        }
        read
    }

    /// Writes what is known, whole or not at all.
    pub fn save(&self, guard: &PinGuard) {
        if let Err(error) = self.replace(&write(guard)) {
            self.warn(&format!(
                "cannot be written ({error}), so a restart may try refused PINs again"
            ));
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let new = self.0.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(new, &self.0)
    }

    fn warn(&self, what: &str) {
        warn!("{} {what}", self.0.display());
    }
}

/// The salt, PINs of the server that some token has refused, then a line for each counter (its name, how many were refused, whether freed),
/// and one for each token and role (its name, role, counter, and the refused PINs).
pub(super) fn write(guard: &PinGuard) -> String {
    let list = |pins: &[Salted]| pins.iter().map(hex).collect::<Vec<_>>().join(",");
    let (salt, server) = (hex(guard.salt()), list(&guard.of_server));
    let mut text = format!("{VERSION}\n{salt}\n{server}\n");
    for (name, counter) in &guard.counters {
        if counter.refusals > 0 || counter.freed {
            let Counter {
                refusals, freed, ..
            } = counter;
            text.push_str(&format!("counter {} {refusals} {freed}\n", hex(name)));
        }
    }
    for ((token, role), known) in &guard.known {
        if known.refused.is_empty() {
            continue;
        }
        let role = match role {
            Role::User => "user",
            Role::So => "so",
        };
        let (token, counter) = (hex(token), hex(&known.counter));
        let refused = list(&known.refused);
        text.push_str(&format!("{role} {token} {counter} {refused}\n"));
    }
    text + "end\n"
}

pub(super) fn read(text: &str) -> Option<PinGuard> {
    let text = text.strip_prefix(VERSION)?.strip_prefix('\n')?;
    let mut lines = text.strip_suffix("end\n")?.lines();
    let list = |pins: &str| {
        let pins = pins.split(',').filter(|pin| !pin.is_empty());
        pins.map(unhex).collect::<Option<Vec<_>>>()
    };
    let mut guard = PinGuard::new(unhex(lines.next()?)?);
    guard.of_server = list(lines.next()?)?;
    for line in lines {
        let mut fields = line.split(' ');
        let mut next = || fields.next();
        let role = match next()? {
            "counter" => {
                let name = unhex(next()?)?;
                let (refusals, freed) = (next()?.parse().ok()?, next()?.parse().ok()?);
                let counter = Counter::new(refusals, freed);
                guard.counters.insert(name, counter);
                continue;
            }
            "user" => Role::User,
            "so" => Role::So,
            _ => return None,
        };
        let (token, counter) = (unhex(next()?)?, unhex(next()?)?);
        let known = Known::new(counter, list(next()?)?);
        guard.counters.entry(counter).or_default();
        guard.known.insert((token, role), known);
    }
    Some(guard)
}

fn hex(bytes: &Salted) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Salted> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .filter_map(|pair| match pair {
            [high, low] => Some(high << 4 | low),
            _ => None,
        })
        .collect();
    (digits.len() == 64).then(|| bytes.try_into().ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::*;
    use crate::engine::login::pin_guard::Subject;
    use crate::engine::login::states::Owner;

    fn guard() -> PinGuard {
        let mut guard = PinGuard::new([7; 32]);
        let subject = |role| Subject {
            token: [1; 32],
            role,
            counter: [2; 32],
            in_tpm: false,
        };
        let now = Instant::now();
        for pin in [[3; 32], [4; 32]] {
            guard.refused(&subject(Role::User), Owner::Server, Some(pin), now);
        }
        guard.servers_refused([5; 32]);
        guard.refused(&subject(Role::So), Owner::Client(1), Some([6; 32]), now);
        guard
    }

    #[test]
    fn what_was_refused_outlives_the_process_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = RefusalsFile::new(folder.path());
        assert!(file.load().is_none());
        for _ in 0..2 {
            file.save(&guard());
            let loaded = file.load().unwrap();
            assert_eq!(loaded.known, guard().known);
            assert_eq!(loaded.counters, guard().counters);
            assert_eq!(loaded.salt(), guard().salt());
            assert_eq!(loaded.of_server, guard().of_server);
        }
        let mode = fs::metadata(&file.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_file_is_none() {
        let whole = write(&guard());
        assert!(read(&whole).is_some());
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_none(), "the first {end} bytes");
        }
        assert!(read(&whole.replace("\nuser ", "\nusr ")).is_none());
    }

    #[test]
    fn an_unclear_answer_is_never_written() {
        let mut guard = PinGuard::new([7; 32]);
        let subject = Subject {
            token: [1; 32],
            role: Role::User,
            counter: [2; 32],
            in_tpm: false,
        };
        guard.unclear(&subject, Owner::Server, Some([3; 32]), Instant::now());
        assert_eq!(write(&guard), write(&PinGuard::new([7; 32])));
    }
}
