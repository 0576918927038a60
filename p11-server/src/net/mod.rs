//! The socket: clients enter, requests go to the service, answers leave.
//!
//! | room | its job |
//! |---|---|
//! | `listen` | make or inherit the socket, and be the only one on it |
//! | `serve` | accept, and give every connection a place and a thread |
//! | `exchange` | one connection: frames in, frames out |
//! | `patience` | reading and writing with deadlines |
//! | `places` | who is served, and who has to make room |
//! | `watch` | answer for an operation that takes too long |
//! | `peer` | who is at the other end |

mod exchange;
mod listen;
mod patience;
mod peer;
mod places;
mod serve;
mod watch;

pub use listen::{Error as SocketError, Socket};
pub use patience::Patience;
pub use peer::Peer;
pub use places::Limits;
pub use serve::Server;
