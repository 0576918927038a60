//! The audit: one line of the log for each request, never with a PIN or a message to sign.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use p11_proto::message::Message;
use p11_proto::{ErrorCode, Identity, Request, Response, Scheme, UriText};
use tracing::{info, warn};

use super::peer::Peer;
use crate::error::{Error, ckr_name};

/// What is known of a request when it has been answered.
#[derive(Default)]
pub(super) struct Entry {
    operation: &'static str,
    subject: Subject,
    /// The scheme of a signature.
    scheme: Option<u16>,
    /// How it ended, if badly.
    failure: Option<(ErrorCode, Option<String>)>,
    /// Why the policy does not allow it.
    why: Option<String>,
}

/// What a request is about: the key or token that it led to, else the URI as the client gave it.
#[derive(Default)]
struct Subject {
    uri: Option<UriText>,
    identity: Option<Identity>,
}

impl Entry {
    /// A request of this name.
    pub fn new(operation: &'static str) -> Entry {
        Entry {
            operation,
            ..Entry::default()
        }
    }

    /// A message that is refused before anything is done.
    pub fn refused(operation: &'static str, code: ErrorCode) -> Entry {
        Entry {
            failure: Some((code, None)),
            ..Entry::new(operation)
        }
    }

    /// A request of protocol 1.
    pub fn of(request: &Request) -> Entry {
        Entry::new(request.name())
    }

    /// Notes what a request is about.
    pub fn set_request(&mut self, request: &Request) {
        let uri = match request {
            Request::OpenKey(open) => Some(&open.uri),
            Request::Sign(sign) => {
                self.scheme = Some(sign.scheme);
                // The key that was opened: its URI is better than the one of this request.
                if self.subject.identity == Some(sign.identity) {
                    return;
                }
                self.subject.identity = Some(sign.identity);
                Some(&sign.uri)
            }
            Request::ListKeys(list) => Some(&list.uri),
            Request::GetPublicKey(get) => Some(&get.uri),
            Request::GetCertificates(get) => Some(&get.uri),
            Request::ImportCertificate(import) => Some(&import.uri),
            Request::CreateKey(create) => Some(&create.uri),
            Request::DeleteKey(delete) => Some(&delete.uri),
            Request::DeleteCertificate(delete) => Some(&delete.uri),
            Request::InitToken(init) => init.uri.as_ref(),
            Request::ChangePin(change) => change.uri.as_ref(),
            _ => None,
        };
        self.subject.uri = uri.cloned();
    }

    /// Notes what it led to.
    pub fn set_response(&mut self, response: &Response) {
        let uri = match response {
            Response::Key(key) => {
                self.subject.identity = Some(key.identity);
                &key.uri
            }
            Response::PublicKey(public) => &public.uri,
            Response::Imported(imported) => &imported.uri,
            Response::TokenReady(ready) => &ready.uri,
            Response::PinChanged(changed) => &changed.uri,
            _ => return,
        };
        self.subject.uri = Some(uri.as_str().into());
    }

    /// It failed.
    pub fn set_failure(&mut self, error: &Error) {
        self.failure = Some((error.code(), error.rv().map(ckr_name)));
        if let Error::NotAllowed(why) = error {
            self.why = Some(why.clone());
        }
    }

    /// Whether it ended badly.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Whether it is a line that an operator can do without, where there are many: a request that was refused, or
    /// that asks nothing of a token.
    fn is_cheap(&self) -> bool {
        let is_refused = self.failure.as_ref().is_some_and(|(code, _)| {
            matches!(
                code,
                ErrorCode::BadFrame
                    | ErrorCode::UnsupportedVersion
                    | ErrorCode::Unsupported
                    | ErrorCode::BadUri
                    | ErrorCode::BadRequest
                    | ErrorCode::NotAllowed
                    | ErrorCode::OutOfScope
                    | ErrorCode::Misconfigured
                    | ErrorCode::Busy
            )
        });
        is_refused || matches!(self.operation, "Ping" | "Status")
    }
}

/// What is written of many requests: of those that are cheap, for each user and second, the first ones and the number
/// of the others.
#[derive(Default)]
pub(super) struct Audit {
    seconds: Mutex<HashMap<u32, Second>>,
}

/// One second of a user.
struct Second {
    began: Instant,
    written: u32,
    /// How many were not, by name and outcome.
    others: BTreeMap<(&'static str, String), u32>,
}

/// How many cheap requests of a user are written in full in each second.
const IN_FULL: u32 = 20;

/// Of so many users seconds are counted; those of others are written as they come.
const MOST_USERS: usize = 4096;

impl Audit {
    /// Writes the line of a request, or counts it.
    pub fn write(&self, entry: &Entry, peer: &Peer, took: Duration) {
        if entry.is_cheap() && !self.is_in_full(entry, peer.uid) {
            return;
        }
        info!(
            target: "audit",
            "operation={} {peer}{entry} duration_us={}",
            entry.operation,
            took.as_micros(),
        );
        if let Some(why) = &entry.why {
            warn!(%peer, "{why}");
        }
    }

    /// A request was refused before it was read.
    pub fn refused_unread(&self, peer: &Peer, code: ErrorCode) {
        self.write(&Entry::refused("unread", code), peer, Duration::ZERO);
    }

    /// A connection was refused.
    pub fn refused_connection(&self, peer: &Peer, why: &str) {
        let entry = Entry::refused("connection", ErrorCode::Busy);
        if self.is_in_full(&entry, peer.uid) {
            warn!(%peer, "a connection is refused: {why}");
        }
    }

    /// Writes what was counted in seconds that are over.
    pub fn sum_up(&self) {
        self.seconds().retain(|uid, second| {
            let is_over = second.is_over();
            if is_over {
                second.sum_up(*uid);
            }
            !is_over
        });
    }

    fn is_in_full(&self, entry: &Entry, uid: u32) -> bool {
        let mut seconds = self.seconds();
        if seconds.len() >= MOST_USERS && !seconds.contains_key(&uid) {
            return true;
        }
        let second = seconds.entry(uid).or_insert_with(Second::begin);
        if second.is_over() {
            second.sum_up(uid);
            *second = Second::begin();
        }
        if second.written < IN_FULL {
            second.written += 1;
            return true;
        }
        let outcome = entry.failure.as_ref().map(|(code, _)| code.to_string());
        let kind = (entry.operation, outcome.unwrap_or_else(|| "ok".into()));
        *second.others.entry(kind).or_default() += 1;
        false
    }

    fn seconds(&self) -> MutexGuard<'_, HashMap<u32, Second>> {
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Second {
    fn begin() -> Second {
        Second {
            began: Instant::now(),
            written: 0,
            others: BTreeMap::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.began.elapsed() >= Duration::from_secs(1)
    }

    fn sum_up(&self, uid: u32) {
        for ((operation, outcome), count) in &self.others {
            info!(target: "audit", "uid={uid} further={count} operation={operation} outcome={outcome}");
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(uri) = &self.subject.uri {
            // Done here, since the client has its answer by now.
            write!(f, " uri={}", quoted(&p11_uri::redact(uri)))?;
        }
        if let Some(identity) = &self.subject.identity {
            write!(f, " identity={identity}")?;
        }
        if let Some(scheme) = self.scheme {
            match Scheme::from_number(scheme) {
                Some(scheme) => write!(f, " scheme={scheme}")?,
                None => write!(f, " scheme={scheme:#06x}")?,
            }
        }
        match &self.failure {
            None => f.write_str(" outcome=ok"),
            Some((code, None)) => write!(f, " outcome={code}"),
            Some((code, Some(ckr))) => write!(f, " outcome={code} ckr={ckr}"),
        }
    }
}

/// A URI ends at the next blank. What would not is quoted, so that it forges no other value; it comes with its own
/// quotes escaped.
fn quoted(uri: &str) -> Cow<'_, str> {
    match uri.starts_with("pkcs11:") && !uri.contains([' ', '"']) {
        true => Cow::Borrowed(uri),
        false => Cow::Owned(format!("\"{uri}\"")),
    }
}
