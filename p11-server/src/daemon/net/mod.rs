//! The socket and its connections, with limits and deadlines.

mod accept;
mod body;
mod budget;
mod connection;
mod handler;
mod limits;
mod listen;
mod messages;
mod rate;
mod threads;
mod timeouts;

#[cfg(any(test, fuzzing))]
pub(super) mod checks;
#[cfg(test)]
pub(super) mod tests;

pub(super) use accept::Server;
pub(super) use handler::Handler;
pub(super) use limits::ConnectionLimits;
pub(super) use listen::Socket;
