//! What was done enters, one line of the log leaves: never a PIN, never a message.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use p11_proto::message::{Key, Message};
use p11_proto::{ErrorCode, Request, Scheme};
use tracing::info;

use crate::error::{Error, ckr_name};
use crate::net::Peer;

/// How long lines are gathered, so that a busy server wakes their writer rarely.
const GATHER: Duration = Duration::from_millis(2);

/// Lines that may wait. When the log takes no more, requests wait with them.
const MOST_WAITING: usize = 4096;

/// Writes the lines in a thread of its own: a connection that has answered waits for its next request
/// at once, which lets the client run on the same core.
#[derive(Default)]
pub struct Audit {
    writer: OnceLock<Option<SyncSender<Line>>>,
}

enum Line {
    Request(Record, Peer, Duration),
    /// Everything before has been written.
    Flush(SyncSender<()>),
}

impl Audit {
    /// A request was answered.
    pub fn note(&self, record: Record, peer: &Peer, took: Duration) {
        if !tracing::enabled!(target: "audit", tracing::Level::INFO) {
            return;
        }
        let unsent = match self.writer() {
            Some(writer) => writer
                .send(Line::Request(record, *peer, took))
                .err()
                .map(|e| e.0),
            None => Some(Line::Request(record, *peer, took)),
        };
        // Without a writer, the lines have to do without it.
        if let Some(Line::Request(record, peer, took)) = unsent {
            record.write(&peer, took);
        }
    }

    /// Waits until all that was noted is written.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if let Some(Some(writer)) = self.writer.get()
            && writer.send(Line::Flush(done)).is_ok()
        {
            let _ = written.recv();
        }
    }

    fn writer(&self) -> Option<&SyncSender<Line>> {
        let start = || {
            let (sender, lines) = sync_channel(MOST_WAITING);
            let thread = thread::Builder::new().name("audit".into());
            thread.spawn(move || write_all(&lines)).ok().map(|_| sender)
        };
        self.writer.get_or_init(start).as_ref()
    }
}

fn write_all(lines: &Receiver<Line>) {
    while let Ok(first) = lines.recv() {
        thread::sleep(GATHER);
        for line in std::iter::once(first).chain(lines.try_iter()) {
            match line {
                Line::Request(record, peer, took) => record.write(&peer, took),
                Line::Flush(done) => drop(done.send(())),
            }
        }
    }
}

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

    fn write(&self, peer: &Peer, took: Duration) {
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
