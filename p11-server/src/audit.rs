//! What was done enters, one line of the log leaves: never a PIN, never a message.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p11_proto::message::{Key, Message};
use p11_proto::{ErrorCode, Request, Scheme};
use tracing::info;

use crate::error::{Error, ckr_name};
use crate::net::Peer;

/// What is known of a request when it has been answered.
#[derive(Default)]
pub struct Record {
    /// What was asked for.
    pub operation: &'static str,
    /// The key or token that it led to, else the URI as the client gave it; without PIN.
    pub about: About,
    /// The scheme of a signature.
    pub scheme: Option<u16>,
    /// How it ended, if badly.
    pub failure: Option<(ErrorCode, Option<String>)>,
}

/// What a request was about.
#[derive(Default)]
pub enum About {
    /// Nothing in particular.
    #[default]
    Nothing,
    /// A key that was found.
    Key(Arc<Key>),
    /// Something that has a URI.
    Uri(String),
}

impl Record {
    /// A request of this name.
    pub fn new(operation: &'static str) -> Record {
        Record {
            operation,
            ..Record::default()
        }
    }

    /// A request of protocol 1.
    pub fn of(request: &Request) -> Record {
        Record::new(request.name())
    }

    /// Notes the URI as the client gave it, fit for a log.
    pub fn about(&mut self, uri: &str) {
        self.about = About::Uri(p11_uri::redact(uri));
    }

    /// It failed.
    pub fn fail(&mut self, error: &Error) {
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

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.about {
            About::Nothing => {}
            About::Key(key) => write!(f, " uri={} identity={}", key.uri, key.identity)?,
            About::Uri(uri) => write!(f, " uri={uri}")?,
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
