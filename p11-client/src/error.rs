//! Errors of the client, each with what to do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use p11_proto::{ErrorCode, Failure, Identity};
use rustls::SignatureScheme;

use crate::no_common_scheme::advice;
use crate::permission;

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
    #[error("no permission to use {0:?}: {remedy}", remedy = permission::remedy(.0))]
    PermissionDenied(PathBuf),
    /// There is something else at the path than a socket of the server.
    #[error(
        "{path:?} is {found}, not the socket of tedge-p11-server: is it the right path? (A container's mount makes a folder where no socket was yet: remove the folder, start the server, and mount the folder of its socket)"
    )]
    #[non_exhaustive]
    NotASocket {
        /// The path that was tried, or the part of it that is no folder.
        path: PathBuf,
        /// What is there, "a folder" for example.
        found: String,
    },
    /// The socket at the path has been deleted where it was made: a mount shows it still.
    #[error(
        "{0:?} is a mount of a socket file that is no more, since the server has made a new one: start this container again, and mount the socket's folder instead of the file"
    )]
    StaleMount(PathBuf),
    /// Who listens on the socket closed the connection instead of answering.
    #[error(
        "the server at {0:?} closed the connection without an answer: its log says why (an old one does so with what it does not know, another program with what is not its protocol: is it the right socket?)"
    )]
    ConnectionLost(PathBuf),
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
    /// The server, or the engine in the process, answered that the request failed.
    #[error(transparent)]
    Server(Failure),
    /// The server speaks tedge1 alone, which has no message for this, or is older than this client.
    #[error(
        "the server at {path:?} is an old one and cannot {what}; tedge-p11-server {version} of this client's project can, and so can later ones",
        version = env!("CARGO_PKG_VERSION")
    )]
    #[non_exhaustive]
    TooOld {
        /// The path that was tried.
        path: PathBuf,
        /// What the server cannot do, after "to".
        what: String,
    },
    /// The server does not speak this client's version of the protocol any more.
    #[error(
        "the server at {path:?} is newer than this client: update the program that uses p11-client ({cause})"
    )]
    #[non_exhaustive]
    TooNew {
        /// The path that was tried.
        path: PathBuf,
        /// What the server says.
        cause: String,
    },
    /// The answer belongs to another request, or tells of a key or signature that cannot be.
    #[error("the answer cannot be used: {cause}")]
    #[non_exhaustive]
    BadAnswer {
        /// What is wrong with it.
        cause: String,
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
    #[error("there is no certificate: the chain is empty")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("the certificate cannot be used: {0}")]
    Certificate(#[source] p11_proto::Error),
    /// The file with the certificates cannot be read.
    #[error("the file of certificates {path:?} cannot be used: {cause}")]
    #[non_exhaustive]
    ChainFile {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A reference to a key, in place of a private key, cannot be used. Quotes no value, since it may hold a PIN.
    #[error("the key cannot be used: {0}")]
    KeyReference(String),
    /// The certificate of the key is in the chain, but not the first.
    #[error(
        "certificate {position} of the chain is that of {key}, and it must be the first: put your own certificate first in the PEM, those of its issuers after it",
        key = key_at(.uri)
    )]
    #[non_exhaustive]
    CertificateOrder {
        /// The URI of the key, if it is in a token.
        uri: Option<String>,
        /// Which certificate of the chain is the key's, counted from 1.
        position: usize,
    },
    /// The peer takes no signature that the key can make, so no certificate was sent.
    #[error("no certificate is sent: the peer takes the signature schemes {offered:?}, and {key} can make {available:?}{advice}", key = key_at(.uri), advice = advice(offered, available))]
    #[non_exhaustive]
    NoCommonScheme {
        /// The URI of the key, if it is in a token.
        uri: Option<String>,
        /// What the peer takes, in this version of TLS.
        offered: Vec<SignatureScheme>,
        /// What the key can make.
        available: Vec<SignatureScheme>,
    },
    /// The module was loaded before `fork(2)`, by the parent of this process.
    #[error(
        "the PKCS#11 module was loaded before this process was forked, and is its parent's: load it after the fork, or use tedge-p11-server"
    )]
    Forked,
    /// The module is in use in this process with another configuration.
    #[error(
        "the PKCS#11 module {path:?} is in use in this process with another {differs}: use one configuration (a request may have a URI and a PIN of its own), or drop all clients of the module first"
    )]
    #[non_exhaustive]
    ModuleInUse {
        /// The path that was given.
        path: PathBuf,
        /// What differs: "PIN and URI" for example.
        differs: String,
    },
    /// The configuration lacks something, or cannot be understood. Quotes no value, since it may be a PIN.
    #[error("the configuration cannot be used: {0}")]
    Config(String),
    /// There is no tokio runtime, or it is shutting down.
    #[error("there is no tokio runtime here, or it is shutting down")]
    NoRuntime,
    /// The program has neither given nor installed a crypto provider for rustls.
    #[error(
        "rustls has no crypto provider: pass one, or install one before (rustls::crypto::CryptoProvider::install_default)"
    )]
    NoCryptoProvider,
    /// rustls refuses the configuration.
    #[error("TLS cannot be configured so: {0}")]
    Tls(#[source] rustls::Error),
    /// A certificate cannot say this, or the key can sign none.
    #[cfg(feature = "csr")]
    #[error("no certificate or request can be made: {0}")]
    CertificateParams(String),
    /// The certificate was issued for another key.
    #[error(
        "the certificate and {at} do not belong together: the certificate is for the key {certificate}, this is the key {key} (SHA-256 of the public key); name the certificate's key or get a certificate for this one",
        at = key_at(.uri)
    )]
    #[non_exhaustive]
    Mismatch {
        /// The URI of the key, if it is in a token.
        uri: Option<String>,
        /// The certificate's public key.
        certificate: Identity,
        /// The key's own public key.
        key: Identity,
    },
}

fn key_at(uri: &Option<String>) -> String {
    match uri {
        Some(uri) => format!("the key {uri:?}"),
        None => "the key".to_owned(),
    }
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
            Error::NotASocket { .. } => "NotASocket",
            Error::StaleMount(_) => "StaleMount",
            Error::ConnectionLost(_) => "ConnectionLost",
            Error::WrongServer { .. } => "WrongServer",
            Error::Socket { .. } => "Socket",
            Error::Deadline { .. } => "Deadline",
            Error::OutcomeUnknown(_) => "OutcomeUnknown",
            Error::TooOld { .. } => "TooOld",
            Error::TooNew { .. } => "TooNew",
            Error::BadAnswer { .. } => "BadAnswer",
            Error::Protocol { .. } => "Protocol",
            Error::Request(_) => "Request",
            Error::NoCertificate => "NoCertificate",
            Error::Certificate(_) => "Certificate",
            Error::ChainFile { .. } => "ChainFile",
            Error::KeyReference(_) => "KeyReference",
            Error::CertificateOrder { .. } => "CertificateOrder",
            Error::NoCommonScheme { .. } => "NoCommonScheme",
            Error::Forked => "Forked",
            Error::ModuleInUse { .. } => "ModuleInUse",
            Error::Config(_) => "Config",
            Error::NoRuntime => "NoRuntime",
            Error::NoCryptoProvider => "NoCryptoProvider",
            Error::Tls(_) => "Tls",
            #[cfg(feature = "csr")]
            Error::CertificateParams(_) => "CertificateParams",
            Error::Mismatch { .. } => "Mismatch",
        })
    }

    /// Whether there is no such token or key.
    pub fn is_not_found(&self) -> bool {
        self.is_of(&[ErrorCode::TokenNotFound, ErrorCode::KeyNotFound])
    }

    /// Whether the key that was opened is no more: another one is in its place, or none. Open it again, with its
    /// certificate as it is now.
    pub fn is_key_changed(&self) -> bool {
        self.is_of(&[ErrorCode::KeyChanged])
    }

    /// Whether the PIN is missing or was refused, or none is tried any more.
    pub fn is_pin(&self) -> bool {
        self.is_of(&[
            ErrorCode::PinRequired,
            ErrorCode::PinIncorrect,
            ErrorCode::PinLocked,
            ErrorCode::PinGuarded,
        ])
    }

    /// Whether server or token has too much to do: the same request may succeed later.
    pub fn is_busy(&self) -> bool {
        self.is_of(&[ErrorCode::Busy])
    }

    /// Whether what is to be made is there already.
    pub fn is_already_there(&self) -> bool {
        self.is_of(&[ErrorCode::AlreadyExists])
    }

    fn is_of(&self, codes: &[ErrorCode]) -> bool {
        matches!(self, Error::Server(failure) if codes.contains(&failure.code))
    }

    /// Finds this crate's error in what a failed handshake returned, however wrapped: in a
    /// [`rustls::Error`], an [`io::Error`] around one, or an error that has one of these as source.
    ///
    /// If it [says so](Error::is_key_changed), the key must be opened again.
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
                | Error::ConnectionLost(_)
                // The service manager, which is about to start the server.
                | Error::WrongServer { found: 0, .. }
        )
    }

    /// For what answers in no protocol of ours.
    pub(crate) fn not_understood(path: &Path, cause: impl Display) -> Self {
        Error::Protocol {
            path: path.to_owned(),
            cause: cause.to_string(),
        }
    }

    pub(crate) fn chain_file(path: &Path, cause: impl Display) -> Self {
        Error::ChainFile {
            path: path.to_owned(),
            cause: cause.to_string(),
        }
    }

    pub(crate) fn malformed_reference(cause: impl Display) -> Self {
        Error::KeyReference(cause.to_string())
    }

    /// For an answer that was understood, and cannot be.
    pub(crate) fn bad_answer(cause: impl Display) -> Self {
        let cause = cause.to_string();
        Error::BadAnswer { cause }
    }

    /// For a response that belongs to another request.
    pub(crate) fn unexpected(name: &str) -> Self {
        Error::bad_answer(format_args!(
            "it was {name:?}, which belongs to another request"
        ))
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
