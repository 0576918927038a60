//! Requests to the server over pooled connections, in the protocol that it speaks, again while it
//! restarts or is busy.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use p11_proto::frame;
use p11_proto::message::{Message, Request, Response};
use p11_proto::{ErrorCode, Failure};

use crate::config::Config;
#[cfg(feature = "tedge1")]
use crate::config::Protocol;
use crate::connection::Connection;
use crate::error::Error;
use crate::per_process::{Inherit, PerProcess};
use crate::retry::Retries;
use crate::socket::{Deadline, Target};
#[cfg(feature = "tedge1")]
use crate::tedge1;
use crate::transport::Transport;

/// Idle connections that are kept, at most.
const MAX_IDLE: usize = 8;

/// The connections to one server, for any number of threads.
///
/// A child of `fork(2)` may use it too: it connects anew, and only closes what it has inherited.
#[derive(Debug)]
pub struct SocketTransport {
    config: Config,
    pool: PerProcess<Pool>,
}

/// The connections of one process. Two processes that share one would read each other's answers.
#[derive(Debug, Default)]
struct Pool(Mutex<PoolState>);

/// What is known of the server, until a request fails.
#[derive(Debug, Default)]
struct PoolState {
    /// `Auto` until the server was asked.
    #[cfg(feature = "tedge1")]
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

impl SocketTransport {
    /// Connects with the first request.
    pub fn new(config: Config) -> Self {
        SocketTransport {
            config,
            pool: PerProcess::default(),
        }
    }

    fn prepare<'a>(
        &'a self,
        request: &'a Request,
        limit: Duration,
    ) -> Result<PreparedRequest<'a>, Error> {
        let deadline = match request.takes_minutes() {
            true => self.config.long_deadline,
            false => self.config.deadline,
        };
        Ok(PreparedRequest {
            request,
            frame: frame::encode(request).map_err(Error::Request)?,
            target: Target {
                path: &self.config.socket_path,
                deadline: Deadline::after(deadline.min(limit)),
                server_uid: self.config.server_uid,
            },
            once: request.changes_token(),
        })
    }

    /// One try, over an idle connection or a new one.
    fn attempt(
        &self,
        prepared: &PreparedRequest<'_>,
        pool: &Pool,
        idle: Option<Connection>,
    ) -> Result<Response, Error> {
        let target = prepared.target;
        let mut connection = match idle {
            Some(connection) => connection,
            #[cfg(feature = "tedge1")]
            None if self.protocol(pool, target)? == Protocol::Tedge1 => {
                return tedge1::call(prepared.request, target);
            }
            None => Connection::new(target.connect()?).map_err(|e| target.error(e))?,
        };
        let response = connection
            .exchange(&prepared.frame, target.deadline)
            .and_then(|body| frame::decode(&body))
            .map_err(|e| target.error(e).if_sent(prepared.once))?;
        let mut state = pool.state();
        if state.idle.len() < MAX_IDLE {
            state.idle.push(connection);
        }
        drop(state);
        match response {
            Response::Error(failure) => Err(refused(failure, prepared)),
            response => Ok(response),
        }
    }

    /// What the server speaks. It is asked before the first connection, if nothing is configured.
    #[cfg(feature = "tedge1")]
    fn protocol(&self, pool: &Pool, target: Target<'_>) -> Result<Protocol, Error> {
        if self.config.protocol != Protocol::Auto {
            return Ok(self.config.protocol);
        }
        let known = pool.state().protocol;
        if known != Protocol::Auto {
            return Ok(known);
        }
        let protocol = tedge1::probe(target)?;
        pool.state().protocol = protocol;
        Ok(protocol)
    }
}

impl Transport for SocketTransport {
    fn call(&self, request: &Request) -> Result<Response, Error> {
        self.call_within(request, Duration::MAX)
    }

    fn call_within(&self, request: &Request, limit: Duration) -> Result<Response, Error> {
        let prepared = self.prepare(request, limit)?;
        let pool = self.pool.get();
        let Config {
            retry_for,
            busy_for,
            ..
        } = self.config;
        let mut retries = Retries::new(prepared.target.deadline, retry_for, busy_for);
        loop {
            let idle = if prepared.once {
                // What is known of the server may be out of date, and there is only one try.
                pool.reset();
                None
            } else {
                pool.state().idle.pop()
            };
            let was_idle = idle.is_some();
            let error = match self.attempt(&prepared, pool, idle) {
                Err(e) => e,
                response => return response,
            };
            if let Error::Server(_) = error {
                if prepared.once {
                    return Err(error);
                }
            } else {
                // The next connection may lead to another server.
                pool.reset();
                if was_idle && error.is_lost_server() {
                    // A server may close idle connections at any time; when it restarts, it closes all.
                    continue;
                }
            }
            retries.wait_after(error)?;
        }
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self) {
        *self.state() = PoolState::default();
    }
}

impl Inherit for Pool {
    fn inherit(&self) -> Self {
        if let Ok(mut state) = self.0.try_lock() {
            // Closed, without a byte being sent: the parent goes on with them.
            state.idle.clear();
        }
        Pool::default()
    }
}

/// Tells a server of another version from one that fails.
fn refused(failure: Failure, prepared: &PreparedRequest<'_>) -> Error {
    let path = || prepared.target.path.to_owned();
    match failure.code {
        ErrorCode::Unsupported => Error::TooOld {
            path: path(),
            what: format!("answer {}", prepared.request.name()),
        },
        ErrorCode::UnsupportedVersion => Error::TooNew {
            path: path(),
            cause: Error::from(failure).to_string(),
        },
        _ => failure.into(),
    }
}
