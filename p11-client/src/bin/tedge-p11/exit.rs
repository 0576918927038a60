//! How the program ends: the exit codes, and refusals, each with the command that helps.

use std::borrow::Cow;
use std::env;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};
use p11_client::{Error, ErrorCode};

/// The exit codes other than 0, which scripts decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It could not be done.
    Failed = 1,
    /// The command line, or a question that nobody was there to answer. Clap's own code.
    Usage = 2,
    /// Nothing, or more than one thing, is what was named.
    NotFound = 3,
    /// The PIN is missing or wrong, or no PIN is taken any more.
    Pin = 4,
    /// Nobody answers at the socket.
    Unreachable = 5,
    /// The server answers, but its module or token does not.
    Unavailable = 6,
    /// This user may not.
    NotAllowed = 7,
}

/// Why nothing, or not all, was done.
#[derive(Debug)]
pub struct Refusal {
    pub exit: Exit,
    /// A stable name for programs: that of the client's error, or of the server's.
    pub code: Cow<'static, str>,
    pub message: String,
    /// Commands that go on from here, to be copied.
    pub next: Vec<String>,
}

impl Refusal {
    pub fn new(exit: Exit, code: &'static str, message: impl Display) -> Self {
        Refusal {
            exit,
            code: Cow::Borrowed(code),
            message: message.to_string(),
            next: Vec::new(),
        }
    }

    pub fn usage(message: impl Display) -> Self {
        Refusal::new(Exit::Usage, "Usage", message)
    }

    pub fn failed(message: impl Display) -> Self {
        Refusal::new(Exit::Failed, "Failed", message)
    }

    /// For what the answer itself says.
    pub fn told(exit: Exit) -> Self {
        Refusal::new(exit, "Told", "")
    }

    pub fn is_told(&self) -> bool {
        self.message.is_empty()
    }

    pub fn next(mut self, command: impl Into<String>) -> Self {
        self.next.push(command.into());
        self
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal {
            exit: exit_of(&error),
            code: error.code(),
            next: next_of(&error),
            message: error.to_string(),
        }
    }
}

fn exit_of(error: &Error) -> Exit {
    match error {
        Error::NoSocket(_)
        | Error::Refused(_)
        | Error::NotASocket { .. }
        | Error::StaleMount(_)
        | Error::ConnectionLost(_)
        | Error::WrongServer { .. }
        | Error::Socket { .. }
        | Error::Protocol { .. } => Exit::Unreachable,
        Error::PermissionDenied(_) => Exit::NotAllowed,
        Error::Deadline { .. } => Exit::Unavailable,
        Error::Server(failure) => match failure.code {
            ErrorCode::TokenNotFound
            | ErrorCode::KeyNotFound
            | ErrorCode::AmbiguousToken
            | ErrorCode::AmbiguousKey => Exit::NotFound,
            ErrorCode::PinRequired
            | ErrorCode::PinIncorrect
            | ErrorCode::PinLocked
            | ErrorCode::PinGuarded => Exit::Pin,
            ErrorCode::NotAllowed | ErrorCode::OutOfScope => Exit::NotAllowed,
            ErrorCode::Busy
            | ErrorCode::Timeout
            | ErrorCode::Misconfigured
            | ErrorCode::ModuleUnavailable
            | ErrorCode::Module => Exit::Unavailable,
            _ => Exit::Failed,
        },
        _ => Exit::Failed,
    }
}

fn next_of(error: &Error) -> Vec<String> {
    let command = match error {
        Error::NoSocket(_) | Error::Refused(_) => {
            "systemctl status tedge-p11-server.socket tedge-p11-server.service".to_owned()
        }
        Error::ConnectionLost(_) => "journalctl -u tedge-p11-server -n 20".to_owned(),
        Error::PermissionDenied(path) => match joining_the_group(path) {
            Some(command) => command,
            None => return Vec::new(),
        },
        Error::OutcomeUnknown(_) => "tedge-p11 keys".to_owned(),
        Error::Server(failure) => match failure.code {
            ErrorCode::TokenNotFound | ErrorCode::AmbiguousToken | ErrorCode::PinLocked => {
                "tedge-p11 tokens".to_owned()
            }
            ErrorCode::KeyNotFound | ErrorCode::AmbiguousKey => "tedge-p11 keys".to_owned(),
            ErrorCode::PinRequired => this_command("--pin-file FILE"),
            ErrorCode::Misconfigured | ErrorCode::ModuleUnavailable | ErrorCode::Module => {
                "journalctl -u tedge-p11-server -n 20".to_owned()
            }
            ErrorCode::Busy | ErrorCode::Timeout => "tedge-p11 status".to_owned(),
            _ => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    vec![command]
}

/// Where the socket is for a group, how this user comes into it.
fn joining_the_group(socket: &Path) -> Option<String> {
    let file = socket.metadata().ok()?;
    if file.mode() & 0o020 == 0 || file.gid() == 0 {
        return None;
    }
    let group = Group::from_gid(Gid::from_raw(file.gid())).ok()??;
    let user = User::from_uid(Uid::effective()).ok()??;
    Some(format!(
        "sudo usermod --append --groups {} {}",
        group.name, user.name
    ))
}

/// The command line as it was, and something more.
pub fn this_command(more: &str) -> String {
    let mut words = vec!["tedge-p11".to_owned()];
    words.extend(env::args().skip(1).map(|word| quoted(&word)));
    words.push(more.to_owned());
    words.join(" ")
}

/// The command line with another name in place of the one that was written; without one, after all else, behind its flag.
pub fn renamed_command(written: Option<&str>, name: &str, flag: &str) -> String {
    renamed(env::args().skip(1), written, name, flag)
}

fn renamed(
    words: impl Iterator<Item = String>,
    mut written: Option<&str>,
    name: &str,
    flag: &str,
) -> String {
    let is_written = written.is_some();
    let mut command = vec!["tedge-p11".to_owned()];
    for word in words {
        let value = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => value,
            _ => &word,
        };
        // The first alone: a file may be called as the key is.
        if written.take_if(|written| *written == value).is_some() {
            let before = word.strip_suffix(value).unwrap_or_default();
            command.push(quoted(&format!("{before}{name}")));
        } else {
            command.push(quoted(&word));
        }
    }
    if !is_written {
        command.extend((!flag.is_empty()).then(|| flag.to_owned()));
        command.push(quoted(name));
    }
    command.join(" ")
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::{quoted, renamed};

    #[test]
    fn words_reach_the_command_as_they_were() {
        assert_eq!(quoted("device/key-1"), "device/key-1");
        assert_eq!(
            quoted("pkcs11:token=a;object=b"),
            "'pkcs11:token=a;object=b'"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn another_name_takes_the_place_of_the_one_that_was_written() {
        let command = |words: &[&str], written, flag| {
            let words = words.iter().map(|word| (*word).to_owned());
            renamed(words, written, "pkcs11:object=a", flag)
        };
        assert_eq!(
            command(&["sign", "a", "a"], Some("a"), ""),
            "tedge-p11 sign pkcs11:object=a a"
        );
        assert_eq!(
            command(&["init", "--token=b", "a b"], Some("b"), "--token"),
            "tedge-p11 init --token=pkcs11:object=a 'a b'"
        );
        assert_eq!(
            command(&["create-key", "a"], None, "--token"),
            "tedge-p11 create-key a --token pkcs11:object=a"
        );
    }
}
