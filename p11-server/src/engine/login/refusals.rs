//! The file in which PINs that were refused, or of which nothing was told, outlive the process: salted digests, for a folder of the
//! machine's memory.

use std::cmp::Reverse;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use tracing::warn;

use super::digests::Salted;
use super::known::{Counter, Known, Note, Since, Unclear};
use super::pin_guard::PinGuard;
use super::states::Role;
use crate::files;

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
    pub fn load(&self, pause: Duration) -> Option<PinGuard> {
        self.warn_of_writers();
        let text = match files::read(&self.0, OFlag::O_NOFOLLOW) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.warn(&format!(
                    "cannot be read ({error}), so PINs refused earlier may be tried again"
                ));
                return None;
            }
        };
        let read = read(&text, pause);
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

    /// Others who may write there have refused PINs forgotten.
    fn warn_of_writers(&self) {
        let Some(folder) = self.0.parent() else {
            return;
        };
        let Ok(found) = fs::metadata(folder) else {
            return;
        };
        if found.mode() & 0o022 != 0 || found.uid() != geteuid().as_raw() {
            warn!(
                "others may write {}, the folder of refused PINs; chown it to the user of the server, and chmod 0700 it",
                folder.display()
            );
        }
    }

    fn warn(&self, what: &str) {
        warn!("{} {what}", self.0.display());
    }
}

/// What is written of tokens: less than is read. The tokens that the server's PIN was sent to are written first, then those of which
/// something has changed last; what is over is forgotten.
const MOST: usize = 256 << 10;

/// The salt, PINs of the server that some token has refused, one line for each token of which clients have set the PIN, and the counters of
/// which no token is known. Then [`of_token`] for each token and role.
fn write(guard: &PinGuard) -> String {
    let (salt, server) = (hex(guard.salt()), list(&guard.of_server));
    let mut text = format!("{VERSION}\n{salt}\n{server}\n");
    for token in guard.clients.keys() {
        text.push_str(&format!("clients {}\n", hex(token)));
    }
    let mut counters = guard.counters.clone();
    let of_tokens: Vec<_> = guard.known.values().map(|known| known.counter).collect();
    for (name, counter) in &guard.counters {
        if !of_tokens.contains(name) {
            text.push_str(&of_counter(name, counter));
        }
    }
    let mut known: Vec<_> = guard.known.iter().collect();
    known.sort_by_key(|(key, known)| (!known.was_servers(), Reverse(guard.changed.get(key))));
    let most = text.len() + MOST;
    for ((token, role), known) in known {
        let counter = counters.remove(&known.counter);
        let counter = counter.map(|counter| of_counter(&known.counter, &counter));
        let lines = counter.unwrap_or_default() + &of_token(token, *role, known);
        if text.len() + lines.len() > most {
            break;
        }
        text.push_str(&lines);
    }
    text + "end\n"
}

/// A line for a counter: its name, how many were refused, whether freed.
fn of_counter(name: &Salted, counter: &Counter) -> String {
    let Counter {
        refusals, freed, ..
    } = counter;
    match *refusals > 0 || *freed {
        true => format!("counter {} {refusals} {freed}\n", hex(name)),
        false => String::new(),
    }
}

/// A line for a token and role (its name, role, counter, the refused PINs, and whether one was the server's), and one for each PIN of which
/// the token has not told whether it is wrong (the same, the PIN, how often, and what it is remembered as where it is the server's).
fn of_token(token: &Salted, role: Role, known: &Known) -> String {
    let role = match role {
        Role::User => "user",
        Role::So => "so",
    };
    let mut text = String::new();
    let (token, counter) = (hex(token), hex(&known.counter));
    let refused = list(&known.refused);
    if !refused.is_empty() {
        let was_servers = known.was_servers;
        text.push_str(&format!(
            "{role} {token} {counter} {refused} {was_servers}\n"
        ));
    }
    let in_flight = known.in_flight.map(|note| (note, 1));
    let unclear = known.unclear.iter().filter_map(Unclear::note);
    for (note, times) in in_flight.into_iter().chain(unclear) {
        let (pin, of_server) = (hex(&note.pin), list(note.of_server.as_slice()));
        text.push_str(&format!(
            "unclear {role} {token} {counter} {pin} {times} {of_server}\n"
        ));
    }
    text
}

fn list(pins: &[Salted]) -> String {
    pins.iter().map(hex).collect::<Vec<_>>().join(",")
}

fn read(text: &str, pause: Duration) -> Option<PinGuard> {
    let text = text.strip_prefix(VERSION)?.strip_prefix('\n')?;
    let mut lines = text.strip_suffix("end\n")?.lines();
    let list = |pins: &str| {
        let pins = pins.split(',').filter(|pin| !pin.is_empty());
        pins.map(unhex).collect::<Option<Vec<_>>>()
    };
    let mut guard = PinGuard::new(unhex(lines.next()?)?, pause);
    guard.of_server = list(lines.next()?)?;
    for line in lines {
        let fields: Vec<_> = line.split(' ').collect();
        match *fields.as_slice() {
            ["clients", token] => {
                guard.clients.insert(unhex(token)?, Since::Before);
            }
            ["counter", name, refusals, freed] => {
                let counter = Counter::new(refusals.parse().ok()?, freed.parse().ok()?);
                guard.counters.insert(unhex(name)?, counter);
            }
            ["unclear", role, token, counter, pin, times, of_server] => {
                let (pin, of_server) = (unhex(pin)?, list(of_server)?.first().copied());
                let known = known(&mut guard, role, token, counter)?;
                known.add(Note { pin, of_server }, times.parse().ok()?, Instant::now());
            }
            [role, token, counter, refused, was_servers] => {
                let known = known(&mut guard, role, token, counter)?;
                known.refused = list(refused)?;
                known.was_servers = was_servers.parse().ok()?;
            }
            _ => return None,
        }
    }
    Some(guard)
}

/// What is known of the token, the role and the counter of a line.
fn known<'g>(
    guard: &'g mut PinGuard,
    role: &str,
    token: &str,
    counter: &str,
) -> Option<&'g mut Known> {
    let role = match role {
        "user" => Role::User,
        "so" => Role::So,
        _ => return None,
    };
    let (token, counter) = (unhex(token)?, unhex(counter)?);
    guard.counters.entry(counter).or_default();
    // The one that has changed last stands first.
    let before = guard
        .changed
        .len()
        .try_into()
        .map_or(i64::MIN, i64::wrapping_neg);
    guard.changed.entry((token, role)).or_insert(before);
    let known = guard.known.entry((token, role)).or_default();
    known.counter = counter;
    Some(known)
}

fn hex(bytes: &Salted) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
    digits.collect()
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

    use super::*;
    use crate::engine::login::attempt::Subject;
    use crate::engine::login::states::Owner;
    use std::os::unix::fs::PermissionsExt;

    const PAUSE: Duration = Duration::from_secs(120);

    fn subject(role: Role) -> Subject {
        Subject {
            token: [1; 32],
            role,
            counter: [2; 32],
            in_tpm: false,
            server: None,
            is_shared: false,
        }
    }

    fn guard() -> PinGuard {
        let mut guard = PinGuard::new([7; 32], PAUSE);
        let now = Instant::now();
        for pin in [[3; 32], [4; 32]] {
            guard.refused(&subject(Role::User), Owner::Server, Some(pin), now);
        }
        guard.servers_refused([5; 32]);
        guard.clients.insert([8; 32], Since::Before);
        guard.refused(&subject(Role::So), Owner::Client(1), Some([6; 32]), now);
        guard
    }

    #[test]
    fn what_was_refused_outlives_the_process_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = RefusalsFile::new(folder.path());
        assert!(file.load(PAUSE).is_none());
        for _ in 0..2 {
            file.save(&guard());
            let loaded = file.load(PAUSE).unwrap();
            assert_eq!(loaded.known, guard().known);
            assert_eq!(loaded.counters, guard().counters);
            assert_eq!(loaded.salt(), guard().salt());
            assert_eq!(loaded.of_server, guard().of_server);
            assert_eq!(loaded.clients, guard().clients);
        }
        let mode = fs::metadata(&file.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_file_is_none() {
        let whole = write(&guard());
        assert!(read(&whole, PAUSE).is_some());
        for end in 0..whole.len() {
            assert!(
                read(&whole[..end], PAUSE).is_none(),
                "the first {end} bytes"
            );
        }
        assert!(read(&whole.replace("\nuser ", "\nusr "), PAUSE).is_none());
    }

    /// A user can make any number of tokens, and have each refuse a PIN.
    #[test]
    fn of_more_tokens_than_fit_the_servers_and_the_latest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = RefusalsFile::new(folder.path());
        let mut guard = guard();
        let of = |number: u16| {
            let mut token = [9; 32];
            token[..2].copy_from_slice(&number.to_be_bytes());
            token
        };
        for number in 0..5000 {
            let subject = Subject {
                token: of(number),
                counter: of(number),
                ..subject(Role::User)
            };
            guard.refused(&subject, Owner::Client(1), Some([3; 32]), Instant::now());
        }
        for _ in 0..2 {
            file.save(&guard);
            guard = file.load(PAUSE).unwrap();
            let is_kept = |token| guard.known.contains_key(&(token, Role::User));
            assert!(is_kept(subject(Role::User).token) && is_kept(of(4999)));
            assert!(!is_kept(of(0)));
        }
    }

    #[test]
    fn what_is_in_flight_or_unclear_is_counted_by_the_next_process() {
        let mut guard = PinGuard::new([7; 32], PAUSE);
        let (subject, now) = (subject(Role::User), Instant::now());
        let note = Note {
            pin: [3; 32],
            of_server: Some([5; 32]),
        };
        assert!(guard.sending(&subject, note));
        let load = |guard: &PinGuard| {
            let loaded = read(&write(guard), PAUSE).unwrap();
            let unclear = &loaded.known[&(subject.token, subject.role)].unclear;
            let unclear: Vec<_> = unclear.iter().filter_map(Unclear::note).collect();
            unclear
        };
        assert_eq!(load(&guard), [(note, 1)]);
        guard.unclear(&subject, Owner::Server, Some(note.pin), now);
        assert_eq!(load(&guard), [(note, 1)]);
        assert!(guard.sending(&subject, note));
        assert_eq!(load(&guard), [(note, 2)]);
        guard.accepted(&subject, Owner::Server, Some(note.pin));
        assert!(!guard.sending(&subject, note), "it was accepted last");
        guard.unclear(&subject, Owner::Server, Some(note.pin), now);
        assert_eq!(write(&guard), write(&PinGuard::new([7; 32], PAUSE)));
    }

    #[test]
    fn what_is_no_regular_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = RefusalsFile::new(folder.path());
        let other = folder.path().join("other");
        fs::write(&other, write(&guard())).unwrap();
        std::os::unix::fs::symlink(&other, &file.0).unwrap();
        assert!(file.load(PAUSE).is_none(), "a link");
        fs::remove_file(&file.0).unwrap();
        nix::unistd::mkfifo(&file.0, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(file.load(PAUSE).is_none(), "a FIFO");
        // It gives way to a file.
        file.save(&guard());
        assert!(file.load(PAUSE).is_some());
        fs::write(&file.0, vec![b'x'; 2 << 20]).unwrap();
        assert!(file.load(PAUSE).is_none(), "a large file");
    }
}
