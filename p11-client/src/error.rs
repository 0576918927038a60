//! What can go wrong between a program and its signature, each with what to do about it.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use p11_proto::{Failure, Identity};

use crate::socket::Target;

/// Why there is no answer, no key or no signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no socket at the path.
    #[error("there is no socket {0:?}: is tedge-p11-server running, and is this its socket path?")]
    NoSocket(PathBuf),
    /// The socket is there and nobody listens on it.
    #[error("nobody listens on {0:?}: start tedge-p11-server")]
    Refused(PathBuf),
    /// This user may not use the socket.
    #[error("no permission to use {0:?}: {remedy}", remedy = permission_remedy(.0))]
    PermissionDenied(PathBuf),
    /// The server closed the connection instead of answering.
    #[error(
        "the server closed the connection without an answer: its log says why (an old one does so with what it does not know)"
    )]
    ConnectionLost,
    /// The socket could not be used for another reason.
    #[error("the socket {path:?} cannot be used: {source}")]
    Socket {
        /// The path that was tried.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The time for the request ran out.
    #[error(
        "the server at {path:?} did not answer within {deadline:?}: its token may be busy or stuck, or it does not speak the protocol that this client is set to"
    )]
    Deadline {
        /// The path that was tried.
        path: PathBuf,
        /// How long the request was allowed to take.
        deadline: Duration,
    },
    /// A request that changes a token was sent, and then something went wrong.
    #[error("{0}; the token may have been changed all the same: look before you try again")]
    OutcomeUnknown(Box<Error>),
    /// The server answered that the request failed.
    #[error(transparent)]
    Server(Failure),
    /// The server speaks tedge1 alone, in which this cannot be said.
    #[error(
        "the server at {path:?} is an old one and cannot {what}; tedge-p11-server 0.1 of this client's project can, and so can later ones"
    )]
    TooOld {
        /// The path that was tried.
        path: PathBuf,
        /// What the server cannot do, after "to".
        what: String,
    },
    /// What answered speaks no protocol that this client knows, or not the one that it is set to.
    #[error(
        "what answers on {path:?} does not speak a protocol of tedge-p11-server ({cause}): is it the right socket, and is the server as new as this client?"
    )]
    Protocol {
        /// The path that was tried.
        path: PathBuf,
        /// What is wrong with the answer.
        cause: String,
    },
    /// The request cannot be sent, for its length most likely.
    #[error("the request cannot be sent: {0}")]
    Request(#[source] p11_proto::Error),
    /// The chain has no certificate.
    #[error("there is no client certificate: the chain is empty")]
    NoCertificate,
    /// The client certificate cannot be read.
    #[error("the client certificate cannot be used: {0}")]
    Certificate(#[source] p11_proto::Error),
    /// The certificate was issued for another key.
    #[error(
        "the client certificate and the key {uri:?} do not belong together: the certificate is for the key {certificate}, the token has the key {key} (SHA-256 of the public key); name the certificate's key or get a certificate for this one"
    )]
    Mismatch {
        /// The URI of the key.
        uri: String,
        /// The certificate's public key.
        certificate: Identity,
        /// The token's public key.
        key: Identity,
    },
}

impl Error {
    /// Finds this crate's error in what a failed handshake returned, however wrapped: in a
    /// [`rustls::Error`], an [`io::Error`] around one, or an error that has one of these as source.
    ///
    /// When it is [`Error::Server`] with the code `KeyChanged`, the key must be opened again.
    pub fn in_handshake<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            // Neither of these two names what it wraps as its source.
            next = if let Some(rustls::Error::Other(other)) = error.downcast_ref() {
                Some(other.0.as_ref())
            } else if let Some(inner) = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
            {
                Some(inner)
            } else {
                error.source()
            };
        }
        None
    }

    /// Whether the server was not there, which a restart explains and a repetition may mend.
    pub(crate) fn is_lost_server(&self) -> bool {
        matches!(
            self,
            Error::NoSocket { .. } | Error::Refused { .. } | Error::ConnectionLost
        )
    }

    pub(crate) fn from_connecting(error: io::Error, target: Target<'_>) -> Self {
        let path = target.path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Error::NoSocket(path),
            io::ErrorKind::ConnectionRefused => Error::Refused(path),
            io::ErrorKind::PermissionDenied => Error::PermissionDenied(path),
            _ => Error::from_exchange(error.into(), target),
        }
    }

    pub(crate) fn from_exchange(error: p11_proto::Error, target: Target<'_>) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, WouldBlock};
        let path = target.path.to_owned();
        match error {
            p11_proto::Error::Truncated => Error::ConnectionLost,
            p11_proto::Error::Io(source) => match source.kind() {
                BrokenPipe | ConnectionReset => Error::ConnectionLost,
                WouldBlock | TimedOut => Error::Deadline {
                    path,
                    deadline: target.deadline.allowed(),
                },
                _ => Error::Socket { path, source },
            },
            other => Error::not_understood(target.path, other),
        }
    }

    /// For an answer that makes no sense.
    pub(crate) fn not_understood(path: &Path, cause: impl Display) -> Self {
        Error::Protocol {
            path: path.to_owned(),
            cause: cause.to_string(),
        }
    }

    /// For a response that belongs to another request.
    pub(crate) fn unexpected(path: &Path, name: &str) -> Self {
        Error::not_understood(path, format_args!("its answer was {name:?}"))
    }

    /// For what goes wrong after a request was sent that may be sent only once.
    pub(crate) fn if_sent(self, once: bool) -> Self {
        match once {
            true => Error::OutcomeUnknown(Box::new(self)),
            false => self,
        }
    }
}

/// The server's own words, fit for a log or terminal.
impl From<Failure> for Error {
    fn from(mut failure: Failure) -> Self {
        failure.message = printable(&failure.message);
        Error::Server(failure)
    }
}

/// Text in which control characters are escaped.
fn printable(text: &str) -> String {
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// Whose group to join. The socket's folder may hide it.
fn permission_remedy(path: &Path) -> String {
    match path.metadata() {
        Ok(socket) => format!("join its group {} and log in again", group(socket.gid())),
        Err(_) => "its folder is closed to this user".to_owned(),
    }
}

/// The name of a group as `/etc/group` has it, else its number.
fn group(gid: u32) -> String {
    let number = gid.to_string();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|group| {
        let mut fields = group.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| format!("{name:?}"))
    });
    name.unwrap_or(number)
}
