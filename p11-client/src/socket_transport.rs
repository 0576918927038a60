//! Sends requests to the server: over pooled connections, in the protocol that it speaks, again
//! while it restarts.

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

/// Idle connections that are kept, at most.
const MAX_IDLE: usize = 4;

/// Between the first try and the second. Each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The connections to one server, for any number of threads.
#[derive(Debug)]
pub(crate) struct Transport {
    config: Config,
    pool: Mutex<PoolState>,
}

/// What is known of the server, until a request fails.
#[derive(Debug, Default)]
struct PoolState {
    /// `Auto` until the server was asked.
    protocol: Protocol,
    /// Connections that speak protocol 1.
    idle: Vec<Connection>,
}

struct PreparedRequest<'a> {
    request: &'a Request,
    frame: frame::Body,
    target: Target<'a>,
    /// Whether it changes a token: such a request is sent once, even if the answer is lost.
    once: bool,
}

impl Transport {
    pub(crate) fn new(config: Config) -> Self {
        let pool = Mutex::default();
        Transport { config, pool }
    }

    pub(crate) fn socket_path(&self) -> &Path {
        &self.config.socket_path
    }

    /// Sends a request and returns the answer, which is never [`Response::Error`].
    pub(crate) fn call(&self, request: &Request) -> Result<Response, Error> {
        let prepared = self.prepare(request)?;
        let mut first_loss = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let idle = if prepared.once {
                // What is known of the server may be out of date, and there is only one try.
                self.reset_pool();
                None
            } else {
                self.pool().idle.pop()
            };
            let was_idle = idle.is_some();
            let lost = match self.attempt(&prepared, idle) {
                Ok(response) => return Ok(response),
                Err(e @ Error::Server(_)) => return Err(e),
                Err(e) => e,
            };
            // The next connection may lead to another server.
            self.reset_pool();
            if !lost.is_lost_server() {
                return Err(lost);
            }
            if was_idle {
                // A server may close idle connections at any time; when it restarts, it closes all.
                continue;
            }
            let waited = first_loss.get_or_insert_with(Instant::now).elapsed();
            pause = pause.min(self.config.retry_for.saturating_sub(waited));
            if pause.is_zero() || !prepared.target.deadline.allows(pause) {
                return Err(lost);
            }
            tracing::debug!("trying again in {pause:?}: {lost}");
            thread::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    fn prepare<'a>(&'a self, request: &'a Request) -> Result<PreparedRequest<'a>, Error> {
        let deadline = match request.takes_minutes() {
            true => self.config.long_deadline,
            false => self.config.deadline,
        };
        Ok(PreparedRequest {
            request,
            frame: frame::encode(request).map_err(Error::Request)?,
            target: Target {
                path: &self.config.socket_path,
                deadline: Deadline::after(deadline),
                server_uid: self.config.server_uid,
            },
            once: request.changes_token(),
        })
    }

    /// One try, over an idle connection or a new one.
    fn attempt(
        &self,
        prepared: &PreparedRequest<'_>,
        idle: Option<Connection>,
    ) -> Result<Response, Error> {
        let target = prepared.target;
        let mut connection = match idle {
            Some(connection) => connection,
            None if self.protocol(target)? == Protocol::Tedge1 => {
                return tedge1::call(prepared.request, target);
            }
            None => Connection::new(target.connect()?).map_err(|e| target.error(e))?,
        };
        let response = connection
            .exchange(&prepared.frame, target.deadline)
            .and_then(|body| frame::decode(&body))
            .map_err(|e| target.error(e).if_sent(prepared.once))?;
        let mut pool = self.pool();
        if pool.idle.len() < MAX_IDLE {
            pool.idle.push(connection);
        }
        match response {
            Response::Error(failure) => Err(failure.into()),
            response => Ok(response),
        }
    }

    /// What the server speaks. It is asked before the first connection, if nothing is configured.
    fn protocol(&self, target: Target<'_>) -> Result<Protocol, Error> {
        if self.config.protocol != Protocol::Auto {
            return Ok(self.config.protocol);
        }
        let known = self.pool().protocol;
        if known != Protocol::Auto {
            return Ok(known);
        }
        let protocol = tedge1::probe(target)?;
        self.pool().protocol = protocol;
        Ok(protocol)
    }

    fn reset_pool(&self) {
        *self.pool() = PoolState::default();
    }

    fn pool(&self) -> MutexGuard<'_, PoolState> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
