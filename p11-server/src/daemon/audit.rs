//! The audit: one line of the log for each request, never with a PIN or a message to sign.

use std::fmt;
use std::time::Duration;

use p11_proto::message::Message;
use p11_proto::{ErrorCode, Identity, Request, Response, Scheme};
use tracing::info;

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
}

/// What a request is about: the key or token that it led to, else the URI as the client gave it.
#[derive(Default)]
struct Subject {
    uri: Option<String>,
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
            Request::InitToken(init) => init.uri.as_ref(),
            Request::ChangePin(change) => change.uri.as_ref(),
            _ => None,
        };
        self.subject.uri = uri.map(|uri| p11_uri::redact(uri));
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
        self.subject.uri = Some(p11_uri::redact(uri));
    }

    /// It failed.
    pub fn set_failure(&mut self, error: &Error) {
        self.failure = Some((error.code(), error.rv().map(ckr_name)));
    }

    /// Writes the line.
    pub fn write(&self, peer: &Peer, took: Duration) {
        info!(
            target: "audit",
            "operation={} {peer}{self} duration_us={}",
            self.operation,
            took.as_micros(),
        );
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(uri) = &self.subject.uri {
            write!(f, " uri={uri}")?;
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
