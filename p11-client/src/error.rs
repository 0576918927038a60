//! Errors of the client, each with what to do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::Display;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Group};
use p11_proto::{Failure, Identity};

/// Why there is no answer, no key or no signature.
///
/// Its text is for people and may change; programs decide on the variant or on [`Error::code`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no socket at the path.
    #[error("there is no socket {0:?}: is tedge-p11-server running, and is this its socket path?")]
    NoSocket(PathBuf),
    /// There is a socket at the path and nobody listens on it.
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
    /// Somebody else listens on the socket than who the client was told to trust.
    #[error(
        "who listens on {path:?} is uid {found} and not {expected}: is it the right socket? A program that asks for PINs in place of the server could listen there"
    )]
    #[non_exhaustive]
    WrongServer {
        /// The path that was tried.
        path: PathBuf,
        /// Who listens.
        found: u32,
        /// Who was expected, by [`Config::server_uid`](crate::Config::server_uid).
        expected: u32,
    },
    /// The socket could not be used for another reason.
    #[error("the socket {path:?} cannot be used: {source}")]
    #[non_exhaustive]
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
    #[non_exhaustive]
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
    /// The server speaks tedge1 alone, which has no message for this.
    #[error(
        "the server at {path:?} is an old one and cannot {what}; tedge-p11-server 0.1 of this client's project can, and so can later ones"
    )]
    #[non_exhaustive]
    TooOld {
        /// The path that was tried.
        path: PathBuf,
        /// What the server cannot do, after "to".
        what: String,
    },
    /// The answer is not in a protocol that this client knows, or not in the one that it is set to.
    #[error(
        "what answers on {path:?} does not speak a protocol of tedge-p11-server ({cause}): is it the right socket, and is the server as new as this client?"
    )]
    #[non_exhaustive]
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
    #[non_exhaustive]
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
    /// A stable name for programs and logs: that of the variant, `NoSocket` for example. For
    /// [`Error::Server`] it is the server's [`ErrorCode`](p11_proto::ErrorCode), `KeyNotFound` for
    /// example.
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Error::Server(failure) => return failure.code.to_string().into(),
            Error::NoSocket(_) => "NoSocket",
            Error::Refused(_) => "Refused",
            Error::PermissionDenied(_) => "PermissionDenied",
            Error::ConnectionLost => "ConnectionLost",
            Error::WrongServer { .. } => "WrongServer",
            Error::Socket { .. } => "Socket",
            Error::Deadline { .. } => "Deadline",
            Error::OutcomeUnknown(_) => "OutcomeUnknown",
            Error::TooOld { .. } => "TooOld",
            Error::Protocol { .. } => "Protocol",
            Error::Request(_) => "Request",
            Error::NoCertificate => "NoCertificate",
            Error::Certificate(_) => "Certificate",
            Error::Mismatch { .. } => "Mismatch",
        })
    }

    /// Finds this crate's error in what a failed handshake returned, however wrapped: in a
    /// [`rustls::Error`], an [`io::Error`] around one, or an error that has one of these as source.
    ///
    /// If its [code](Error::code) is `KeyChanged`, the key must be opened again.
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

    /// Whether the server was not there or has left, as during a restart.
    pub(crate) fn is_lost_server(&self) -> bool {
        matches!(
            self,
            Error::NoSocket(_)
                | Error::Refused(_)
                | Error::ConnectionLost
                // The service manager, which is about to start the server.
                | Error::WrongServer { found: 0, .. }
        )
    }

    /// For an answer that cannot be decoded.
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

    /// For an error after a request was sent that may be sent only `once`.
    pub(crate) fn if_sent(self, once: bool) -> Self {
        match once {
            true => Error::OutcomeUnknown(Box::new(self)),
            false => self,
        }
    }
}

/// With the characters in the server's text escaped that drive terminals or turn around what is read.
impl From<Failure> for Error {
    fn from(mut failure: Failure) -> Self {
        let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let escaped = |c: char| match c.is_control() || turns(c) {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        };
        failure.message = failure.message.chars().map(escaped).collect();
        Error::Server(failure)
    }
}

/// Which group to join, unless the socket's folder hides the socket.
fn permission_remedy(path: &Path) -> String {
    let Ok(socket) = path.metadata() else {
        return "its folder is closed to this user".to_owned();
    };
    let gid = socket.gid();
    let group = match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => format!("{:?}", group.name),
        _ => gid.to_string(),
    };
    format!("join its group {group} and log in again")
}
