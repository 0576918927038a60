//! Requests in, answers out: over kept connections, repeated while the server restarts.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use p11_proto::frame;
use p11_proto::message::{Key, Message, OpenKey, Ping, Pong, Request, Response, Sign};

use crate::config::Config;
use crate::connection::{Connection, Deadline};
use crate::error::{Error, printable};

/// Connections that wait for the next request, at most. More are opened when more are needed.
const MAX_IDLE: usize = 4;

/// Pauses between two tries, the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A client of `tedge-p11-server`.
///
/// Connects with the first request and keeps the connection. Clones share their connections, and
/// several threads may ask at once: each has a connection of its own meanwhile.
#[derive(Clone, Debug)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Config,
    idle: Mutex<Vec<Connection>>,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(config: Config) -> Self {
        let idle = Mutex::default();
        Client(Arc::new(Shared { config, idle }))
    }

    /// Asks for a sign of life; a server that is started by its socket wakes up.
    ///
    /// # Errors
    /// As for any request, see [`Error`].
    pub fn ping(&self) -> Result<Pong, Error> {
        match self.call(&Request::Ping(Ping {}))? {
            Response::Pong(pong) => Ok(pong),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Asks which key is meant and what it can do.
    ///
    /// # Errors
    /// As for any request, see [`Error`].
    pub fn open_key(&self, request: OpenKey) -> Result<Key, Error> {
        match self.call(&Request::OpenKey(request))? {
            Response::Key(key) => Ok(key),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Asks for a signature.
    ///
    /// # Errors
    /// As for any request, see [`Error`].
    pub fn sign(&self, request: Sign) -> Result<Vec<u8>, Error> {
        match self.call(&Request::Sign(request))? {
            Response::Signature(answer) => Ok(answer.signature.into_vec()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// One request and its answer. Only for requests that change nothing: whether a request that
    /// was lost with its connection has been carried out is not known, and it is sent again.
    fn call(&self, request: &Request) -> Result<Response, Error> {
        let config = &self.0.config;
        let frame = frame::encode(request).map_err(Error::Request)?;
        let deadline = Deadline::after(config.deadline);
        let mut retry = Retry::within(config.retry_for);
        loop {
            let kept = self.idle().pop();
            let was_kept = kept.is_some();
            let lost = match self.attempt(kept, &frame, deadline) {
                Ok(Response::Error(mut failure)) => {
                    failure.message = printable(&failure.message);
                    return Err(Error::Server(failure));
                }
                Ok(answer) => return Ok(answer),
                Err(e) if !e.is_lost_server() => return Err(e),
                Err(e) => e,
            };
            if was_kept {
                // The server closes idle connections as it likes; all of them when it restarts.
                self.idle().clear();
                continue;
            }
            let Some(pause) = retry.pause().filter(|pause| deadline.allows(*pause)) else {
                return Err(lost);
            };
            tracing::debug!("trying again in {pause:?}: {lost}");
            thread::sleep(pause);
        }
    }

    fn attempt(
        &self,
        kept: Option<Connection>,
        frame: &[u8],
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let config = &self.0.config;
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(&config.socket_path, deadline)
                .map_err(|e| Error::from_connecting(e, config))?,
        };
        let answer = connection
            .exchange(frame, deadline)
            .and_then(|body| frame::decode(&body))
            .map_err(|e| Error::from_exchange(e, config))?;
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unexpected(&self, answer: &Response) -> Error {
        self.not_understood(&format_args!("its answer was {:?}", answer.name()))
    }

    /// The error for an answer that makes no sense in protocol 1.
    pub(crate) fn not_understood(&self, cause: &dyn Display) -> Error {
        Error::Protocol {
            path: self.0.config.socket_path.clone(),
            cause: cause.to_string(),
        }
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
