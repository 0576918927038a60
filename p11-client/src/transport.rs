//! A request goes in, its answer comes out: in the language that the server speaks, over kept
//! connections, and repeated while the server restarts.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use p11_proto::frame;
use p11_proto::message::{Request, Response};

use crate::config::{Config, Protocol};
use crate::connection::Connection;
use crate::error::Error;
use crate::socket::{Deadline, Target};
use crate::tedge1;

/// Connections that wait for the next request, at most. More are opened when more are needed.
const MAX_IDLE: usize = 4;

/// Pauses between two tries, the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The way to one server. Several threads may ask at once.
#[derive(Debug)]
pub(crate) struct Transport {
    config: Config,
    known: Mutex<Known>,
}

/// What is known of the server, until something goes wrong with it.
#[derive(Debug, Default)]
struct Known {
    /// What it speaks.
    protocol: Protocol,
    /// Connections that speak protocol 1.
    idle: Vec<Connection>,
}

/// A request on its way.
struct Outgoing<'a> {
    request: &'a Request,
    frame: frame::Body,
    target: Target<'a>,
    /// Whether it changes a token. Such a request is sent once, whatever becomes of it.
    once: bool,
}

impl Transport {
    pub(crate) fn new(config: Config) -> Self {
        let known = Mutex::default();
        Transport { config, known }
    }

    pub(crate) fn socket_path(&self) -> &Path {
        &self.config.socket_path
    }

    /// One request and its answer, which is never [`Response::Error`].
    pub(crate) fn call(&self, request: &Request) -> Result<Response, Error> {
        let outgoing = self.prepare(request)?;
        let mut retry = Retry::within(self.config.retry_for);
        loop {
            let kept = if outgoing.once {
                // What is known of the server may be out of date, and there is no second try.
                self.forget();
                None
            } else {
                self.known().idle.pop()
            };
            let was_kept = kept.is_some();
            let lost = match self.attempt(&outgoing, kept) {
                Ok(Response::Error(failure)) => return Err(failure.into()),
                Ok(answer) => return Ok(answer),
                Err(e @ Error::Server(_)) => return Err(e),
                Err(e) => e,
            };
            // What answers next may be another server.
            self.forget();
            if !lost.is_lost_server() {
                return Err(lost);
            }
            if was_kept {
                // The server closes idle connections as it likes; all of them when it restarts.
                continue;
            }
            let deadline = outgoing.target.deadline;
            let Some(pause) = retry.pause().filter(|pause| deadline.allows(*pause)) else {
                return Err(lost);
            };
            tracing::debug!("trying again in {pause:?}: {lost}");
            thread::sleep(pause);
        }
    }

    fn prepare<'a>(&'a self, request: &'a Request) -> Result<Outgoing<'a>, Error> {
        let deadline = match request {
            Request::CreateKey(_) | Request::InitToken(_) => self.config.long_deadline,
            _ => self.config.deadline,
        };
        Ok(Outgoing {
            request,
            frame: frame::encode(request).map_err(Error::Request)?,
            target: Target {
                path: &self.config.socket_path,
                deadline: Deadline::after(deadline),
            },
            once: matches!(
                request,
                Request::ImportCertificate(_)
                    | Request::CreateKey(_)
                    | Request::DeleteKey(_)
                    | Request::InitToken(_)
                    | Request::ChangePin(_)
            ),
        })
    }

    /// One try, over a kept connection or a new one.
    fn attempt(&self, out: &Outgoing<'_>, kept: Option<Connection>) -> Result<Response, Error> {
        let mut connection = match kept {
            Some(connection) => connection,
            None if self.protocol(out.target)? == Protocol::Tedge1 => {
                return tedge1::call(out.request, out.target);
            }
            None => Connection::new(out.target.connect()?),
        };
        let answer = connection
            .exchange(&out.frame, out.target.deadline)
            .and_then(|body| frame::decode(&body))
            .map_err(|e| Error::from_exchange(e, out.target).if_sent(out.once))?;
        let mut known = self.known();
        if known.idle.len() < MAX_IDLE {
            known.idle.push(connection);
        }
        Ok(answer)
    }

    /// What the server speaks. Asked when a new connection is needed and it is not known.
    fn protocol(&self, target: Target<'_>) -> Result<Protocol, Error> {
        if self.config.protocol != Protocol::Auto {
            return Ok(self.config.protocol);
        }
        let known = self.known().protocol;
        if known != Protocol::Auto {
            return Ok(known);
        }
        let protocol = tedge1::probe(target)?;
        self.known().protocol = protocol;
        Ok(protocol)
    }

    fn forget(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The growing pauses between tries, from the first failure to the end of patience.
struct Retry {
    patience: Duration,
    since: Option<Instant>,
    next: Duration,
}

impl Retry {
    fn within(patience: Duration) -> Self {
        Retry {
            patience,
            since: None,
            next: PAUSES.0,
        }
    }

    /// How long to wait before the next try; `None` when it is time to give up.
    fn pause(&mut self) -> Option<Duration> {
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        let left = self
            .patience
            .checked_sub(waited)
            .filter(|left| !left.is_zero())?;
        let pause = self.next.min(left);
        self.next = (self.next * 2).min(PAUSES.1);
        Some(pause)
    }
}
