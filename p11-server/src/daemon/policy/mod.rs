//! The policy: which users may do what with which keys and tokens.
//!
//! Without a file, whoever can open the socket may do everything.
//!
//! ```toml
//! [[rule]]
//! users = ["tedge"]                  # names or numbers
//! groups = ["iot"]                   # primary group, or the account's groups
//! operations = ["sign", "list"]
//! uri = "pkcs11:token=device-token"  # without it: every token and key
//! ```

mod file;
mod operation;

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, User, getgrouplist};
use p11_uri::{ObjectInfo, TokenInfo, Uri};
use tracing::warn;

use crate::daemon::files;
use crate::daemon::notice::Place;
use crate::error::Error as ServiceError;
use crate::service::Access;

use self::file::Rule;
pub(super) use self::operation::Operation;

/// What must hold for any bytes of a policy file: the body of the fuzz target, and of a test.
#[cfg(any(test, fuzzing))]
#[allow(clippy::panic, reason = "a check fails by panicking")]
pub fn check_policy(input: &[u8]) {
    const PIN: &str = "7391826450";
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    match file::rules(text) {
        Ok(rules) => assert!(rules.iter().all(|rule| {
            let is_for_somebody = !(rule.users.is_empty() && rule.groups.is_empty());
            is_for_somebody
                && !rule.operations.is_empty()
                && rule.uri.vendor_path().next().is_none()
        })),
        Err(wrong) => assert!(wrong.why.starts_with("line "), "{wrong}"),
    }
    // Whoever writes a PIN into it reads of an error, and not of the PIN.
    let rule = "[[rule]]\nusers = [0]\noperations = [\"sign\"]\n";
    for planted in [
        format!("pin = \"{PIN}\"\n"),
        format!("uri = \"pkcs11:token=t?pin-value={PIN}\"\n"),
        format!("uri = \"pkcs11:token=t;pin={PIN}\"\n"),
    ] {
        let told = file::rules(&format!("{text}\n{rule}{planted}"));
        let why = told
            .err()
            .map_or_else(String::new, |wrong| wrong.to_string());
        assert!(!why.is_empty() && !why.contains(PIN), "{why}");
    }
}

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be read.
    #[error(
        "cannot read the policy {}: {cause}; put it there, readable for uid {}, or leave out --policy",
        path.display(),
        nix::unistd::geteuid()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is no policy.
    #[error("the policy {} cannot be used: {cause}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which line and rule, what about it, and what may stand there.
        cause: file::Wrong,
    },
}

impl Error {
    /// Which file it is about, and which line.
    pub(crate) fn place(&self) -> Place {
        match self {
            Error::Read { path, .. } => Place::of(path),
            Error::Invalid { path, cause } => Place {
                line: Some(cause.line),
                ..Place::of(path)
            },
        }
    }
}

/// How long it is believed in which groups a user is.
const GROUPS: Duration = Duration::from_secs(60);

/// Of so many users it is known.
const MOST_KNOWN: usize = 1024;

/// By the user and group of a process.
type KnownGroups = HashMap<(u32, u32), (Instant, Vec<Gid>)>;

/// Who may do what.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// `None`: everybody may do everything.
    rules: Option<Vec<Rule>>,
    sign_only: bool,
    /// The groups of users who have asked, and when they were looked up.
    groups: Mutex<KnownGroups>,
}

impl Policy {
    /// Reads a policy, or the one that allows everything; `sign_only` refuses all that changes a
    /// token, whatever the rules say.
    ///
    /// # Errors
    /// [`Error`] names line or rule.
    pub(crate) fn load(path: Option<&Path>, sign_only: bool) -> Result<Policy, Error> {
        let rules = path.map(|path| {
            let read = |path| {
                let file = files::read(path)?;
                Ok(str::from_utf8(&file).map_err(io::Error::other)?.to_owned())
            };
            let text = read(path).map_err(|cause| Error::Read {
                path: path.into(),
                cause,
            })?;
            file::rules(&text).map_err(|cause| Error::Invalid {
                path: path.into(),
                cause,
            })
        });
        Ok(Policy {
            rules: rules.transpose()?,
            sign_only,
            groups: Mutex::default(),
        })
    }

    /// Whether this user may do this at all; if so, to what.
    ///
    /// # Errors
    /// [`ServiceError::NotAllowed`]
    pub(crate) fn grant(
        &self,
        uid: u32,
        gid: u32,
        operation: Operation,
    ) -> Result<Grant<'_>, ServiceError> {
        if self.sign_only && operation.changes() {
            return Err(ServiceError::NotAllowed(format!(
                "{} is not allowed: the server was started with --sign-only",
                operation.name()
            )));
        }
        let Some(rules) = &self.rules else {
            return Ok(Grant {
                operation,
                rules: None,
            });
        };
        let of_user = self.rules_for(rules, uid, gid);
        let allowing: Vec<&Rule> = of_user
            .iter()
            .filter(|rule| rule.operations.contains(&operation))
            .copied()
            .collect();
        if allowing.is_empty() {
            let which = match of_user.as_slice() {
                [] => format!("no rule of the policy is for uid {uid}"),
                rules => format!(
                    "{} of the policy does not allow it to uid {uid}",
                    numbers(rules)
                ),
            };
            let message = format!("{} is not allowed: {which}", operation.name());
            return Err(ServiceError::NotAllowed(message));
        }
        Ok(Grant {
            operation,
            rules: Some(allowing),
        })
    }

    /// What this user may do, be it with one token or key alone.
    pub(crate) fn allowed(&self, uid: u32, gid: u32) -> Vec<Operation> {
        let of_user = self.rules.as_deref();
        let of_user = of_user.map(|rules| self.rules_for(rules, uid, gid));
        let may = |operation: &Operation| {
            let allows = |rule: &&Rule| rule.operations.contains(operation);
            !(self.sign_only && operation.changes())
                && of_user
                    .as_ref()
                    .is_none_or(|rules| rules.iter().any(allows))
        };
        Operation::ALL.into_iter().filter(may).collect()
    }

    /// Whether this user may do anything at all.
    pub(crate) fn allows_anything(&self, uid: u32, gid: u32) -> bool {
        let rules = self.rules.as_deref();
        rules.is_none_or(|rules| !self.rules_for(rules, uid, gid).is_empty())
    }

    fn rules_for<'p>(&'p self, rules: &'p [Rule], uid: u32, gid: u32) -> Vec<&'p Rule> {
        let by_group = rules.iter().any(|rule| !rule.groups.is_empty());
        let groups = match by_group {
            true => self.groups_of(uid, gid),
            false => Vec::new(),
        };
        let for_user = |rule: &&Rule| {
            rule.users.contains(&Uid::from_raw(uid))
                || rule.groups.iter().any(|group| groups.contains(group))
        };
        rules.iter().filter(for_user).collect()
    }

    /// The groups of an account in the host's user database, and the one that its process has.
    fn groups_of(&self, uid: u32, gid: u32) -> Vec<Gid> {
        let mut known = self.known_groups();
        known.retain(|_, (since, _)| since.elapsed() < GROUPS);
        if let Some((_, groups)) = known.get(&(uid, gid)) {
            return groups.clone();
        }
        drop(known);
        // The database may be far away: nobody else waits meanwhile, and what it failed to tell is
        // asked again.
        let mut groups = vec![Gid::from_raw(gid)];
        match account_groups(Uid::from_raw(uid)) {
            Ok(of_account) => {
                groups.extend(of_account);
                let mut known = self.known_groups();
                // A container may have as many as there are numbers.
                if known.len() < MOST_KNOWN {
                    known.insert((uid, gid), (Instant::now(), groups.clone()));
                }
            }
            Err(error) => warn!("cannot look up the groups of uid {uid}: {error}"),
        }
        groups
    }

    fn known_groups(&self) -> MutexGuard<'_, KnownGroups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// None for a user without an account.
fn account_groups(uid: Uid) -> nix::Result<Vec<Gid>> {
    let Some(user) = User::from_uid(uid)? else {
        return Ok(Vec::new());
    };
    match CString::new(user.name) {
        Ok(name) => getgrouplist(&name, user.gid),
        Err(_) => Ok(Vec::new()),
    }
}

/// An operation that a user may do, and the rules that say to what.
pub(crate) struct Grant<'p> {
    operation: Operation,
    rules: Option<Vec<&'p Rule>>,
}

impl Grant<'_> {
    /// Whether it is for every token and key.
    pub(crate) fn is_for_all(&self) -> bool {
        let rules = self.rules.as_deref();
        rules.is_none_or(|rules| rules.iter().any(|rule| rule.uri == Uri::default()))
    }
}

impl Access for Grant<'_> {
    fn is_restricted(&self) -> bool {
        self.rules.is_some()
    }

    fn check(&self, token: &TokenInfo, object: Option<&ObjectInfo>) -> Result<(), ServiceError> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        // Who may touch one object may not touch what all others on the token depend on.
        let is_of_token = matches!(self.operation, Operation::ChangePin | Operation::InitToken);
        let covers = |rule: &&Rule| {
            rule.uri.matches_token(token)
                && !(is_of_token && rule.uri.names_object())
                && object.is_none_or(|object| rule.uri.matches_key(&object.label, &object.id))
        };
        if rules.iter().any(covers) {
            return Ok(());
        }
        let name = self.operation.name();
        if is_of_token && rules.iter().any(|rule| rule.uri.names_object()) {
            return Err(ServiceError::NotAllowed(format!(
                "{name} is not allowed for {}: it concerns the whole token, and {} of the policy names an object; a \
                 rule for it names the token alone",
                Uri::of_token(token).shown(),
                numbers(rules)
            )));
        }
        let uri = match object {
            Some(object) => Uri::of_object(token, object),
            None => Uri::of_token(token),
        };
        Err(ServiceError::NotAllowed(format!(
            "{name} is not allowed for {}: {} of the policy is limited to other URIs",
            uri.shown(),
            numbers(rules)
        )))
    }
}

/// `rule 2`, or `rules 1, 3`
fn numbers(rules: &[&Rule]) -> String {
    let numbers: Vec<_> = rules.iter().map(|rule| rule.number.to_string()).collect();
    let plural = if numbers.len() > 1 { "s" } else { "" };
    format!("rule{plural} {}", numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        Policy {
            rules: Some(file::rules(text).unwrap()),
            ..Policy::default()
        }
    }

    fn token(label: &str) -> TokenInfo {
        let mut token = TokenInfo::default();
        token.label = label.into();
        token
    }

    #[test]
    fn whatever_is_in_the_file_it_is_taken_or_refused_and_no_pin_is_repeated() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/policy");
        let Ok(files) = std::fs::read_dir(folder) else {
            // In the package of this crate alone there is none.
            return;
        };
        for file in files {
            check_policy(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }

    #[test]
    fn a_rule_allows_its_operations_to_its_users_on_its_tokens() {
        let policy = policy(
            "[[rule]]\nusers = [\"root\"]\noperations = [\"sign\"]\nuri = \"pkcs11:token=a\"",
        );
        let grant = policy.grant(0, 0, Operation::Sign).unwrap();
        grant.check(&token("a"), None).unwrap();
        let refused = grant.check(&token("b"), None).unwrap_err().to_string();
        assert!(
            refused.contains("sign is not allowed for pkcs11:token=b: rule 1"),
            "{refused}"
        );

        let long = grant
            .check(&token(&"ü".repeat(120)), None)
            .unwrap_err()
            .to_string();
        assert!(long.len() < 400, "{long}");

        let nobody = policy
            .grant(65534, 65534, Operation::Sign)
            .err()
            .unwrap()
            .to_string();
        assert!(
            nobody.contains("no rule of the policy is for uid 65534"),
            "{nobody}"
        );
    }

    #[test]
    fn a_group_is_the_primary_one_or_one_of_the_account() {
        let policy = policy("[[rule]]\ngroups = [\"root\", 4711]\noperations = [\"sign\"]");
        assert!(
            policy.grant(65534, 4711, Operation::Sign).is_ok(),
            "of the process"
        );
        assert!(
            policy.grant(0, 65534, Operation::Sign).is_ok(),
            "of the account"
        );
        assert!(policy.grant(65534, 65534, Operation::Sign).is_err());
    }

    #[test]
    fn groups_are_looked_up_again_after_a_minute() {
        let policy = policy("[[rule]]\ngroups = [4711]\noperations = [\"sign\"]");
        for (seconds, is_member) in [(50, true), (70, false)] {
            let since = Instant::now() - Duration::from_secs(seconds);
            let groups = vec![Gid::from_raw(4711)];
            policy.known_groups().insert((0, 65534), (since, groups));
            assert_eq!(policy.grant(0, 65534, Operation::Sign).is_ok(), is_member);
        }
    }

    #[test]
    fn groups_are_remembered_of_some_users_only() {
        let policy = policy("[[rule]]\ngroups = [1]\noperations = [\"sign\"]");
        for gid in 0..2000 {
            let is_member = policy.grant(65534, gid, Operation::Sign).is_ok();
            assert_eq!(is_member, gid == 1);
        }
        assert!(policy.known_groups().len() <= 1024);
    }

    #[test]
    fn sign_only_goes_before_every_rule() {
        let policy = Policy {
            sign_only: true,
            ..policy("[[rule]]\nusers = [0]\noperations = [\"sign\", \"delete-key\"]")
        };
        assert!(policy.grant(0, 0, Operation::Sign).is_ok());
        let refused = policy
            .grant(0, 0, Operation::DeleteKey)
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains("delete-key is not allowed"), "{refused}");
        assert!(refused.contains("--sign-only"), "{refused}");
    }
}
