//! What a request to the engine can fail with, what heals it, and what the client is told.

use std::path::PathBuf;
use std::time::Duration;

use cryptoki::context::Function;
use cryptoki::error::RvError;
use p11_proto::{ErrorCode, Failure, Identity};

/// Why the engine could not do what was asked.
///
/// Messages name the remedy; none contains a PIN or a message to sign.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URI of the request or of the configuration cannot be used.
    #[error("the PKCS#11 URI cannot be used: {0}")]
    BadUri(#[from] p11_uri::Error),
    /// A field of the request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// No token matches.
    #[error("{0}")]
    TokenNotFound(String),
    /// No key matches.
    #[error("{why}")]
    KeyNotFound {
        /// What was looked for, and where.
        why: String,
        /// Whether the URI names a token, which is there: no other token is worth a look.
        names_token: bool,
    },
    /// Several tokens match, and the request needs one.
    #[error("{0}")]
    AmbiguousToken(String),
    /// The key is in sight nowhere, and several tokens could be hiding it.
    #[error("{0}")]
    KeyHidden(String),
    /// Several keys match, and the request would change one.
    #[error("{0}")]
    AmbiguousKey(String),
    /// What is to be made is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The request would change a token outside the server's own URI.
    #[error("{0}")]
    OutOfScope(String),
    /// The URI leads to another key than the client opened.
    #[error(
        "{uri} led to the key {opened} when it was opened and leads to another one now; \
         check the certificate and open the key again"
    )]
    KeyChanged {
        /// The URI as the client gave it, without PIN.
        uri: String,
        /// The key that was opened.
        opened: Identity,
    },
    /// The key cannot do this scheme.
    #[error("the key cannot sign with TLS scheme {scheme:#06x}; it can do {available}")]
    UnsupportedScheme {
        /// Number of the scheme.
        scheme: u16,
        /// The names of the schemes that it can do.
        available: String,
    },
    /// The token wants a PIN and nobody gave one.
    #[error("the token {token} wants a PIN and none is configured; set {place}")]
    PinRequired {
        /// The token's URI.
        token: String,
        /// Where one is set.
        place: &'static str,
    },
    /// The token refused the PIN, now or earlier, or is logged in with another.
    #[error("{0}")]
    PinIncorrect(String),
    /// The token accepts no PIN any more.
    #[error("{0}")]
    PinLocked(String),
    /// We refuse to send a PIN, so that the token is not locked.
    #[error("{0}")]
    PinGuarded(String),
    /// The policy does not let this user do this.
    #[error("{0}")]
    NotAllowed(String),
    /// Token, key or module cannot do this.
    #[error("{0}")]
    NotSupported(String),
    /// All sessions are in use, or the token is being changed.
    #[error("{0}")]
    Busy(String),
    /// Others had the token until the time was up, or nobody waits for the answer any more.
    #[error("{0}")]
    Timeout(String),
    /// Between two steps the token was changed by another request. From the start it may succeed.
    #[error("the token {token} is being changed; try again")]
    Changed {
        /// The token's URI.
        token: String,
    },
    /// The configuration cannot be used: nothing is done until it is mended.
    #[error("the server's configuration cannot be used: {0}")]
    Misconfigured(String),
    /// The module is down; it is tried again at the next request after `retry_in`.
    #[error(
        "the PKCS#11 module is not available ({cause}); it is tried again in {} s",
        retry_in.as_micros().div_ceil(1_000_000).max(1)
    )]
    ModuleUnavailable {
        /// What its `C_Initialize` said.
        cause: String,
        /// Time until the next try.
        retry_in: Duration,
    },
    /// The module file cannot be used at all.
    #[error("cannot load the PKCS#11 module {}: {cause}", path.display())]
    Load {
        /// Where it was looked for.
        path: PathBuf,
        /// What the loader said.
        cause: String,
    },
    /// A call of the module failed.
    #[error("the PKCS#11 module failed: {}{}", ckr(*rv, *function), advice(*rv))]
    Module {
        /// Its return value.
        rv: RvError,
        /// The function that returned it.
        function: Function,
    },
    /// A call of the module failed that takes a PIN.
    #[error("the PKCS#11 module failed on the token {token}: {}{}{hint}", ckr(*rv, *function), advice(*rv))]
    Login {
        /// The token's URI.
        token: String,
        /// Its return value.
        rv: RvError,
        /// The function that returned it.
        function: Function,
        /// What the server has found to be the cause.
        hint: String,
    },
    /// The module gave an answer that cannot be.
    #[error("{0}")]
    BadAnswer(String),
    /// A deletion was made in part.
    #[error("deleted {}, but not {}: {cause}", list(deleted), list(left))]
    Unfinished {
        /// The URIs of what is gone.
        deleted: Vec<String>,
        /// The URIs of what is still there.
        left: Vec<String>,
        /// Why.
        cause: Box<Error>,
    },
    /// A defect of the server.
    #[error("{0}")]
    Internal(String),
}

/// What who may not list all tokens is told in place of what is wrong.
pub(crate) const HIDDEN_TROUBLE: &str =
    "there is trouble; who may list all tokens is told what it is";

/// The longest message, in bytes: of thousands of keys some are enough, and a frame has to hold them.
const LONGEST_MESSAGE: usize = 4096;

/// What a failure calls for before the one retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// It would fail again.
    None,
    /// The handle is stale: find the key again.
    FindKeyAgain,
    /// Give up sessions and login of the token, and list the slots.
    NewLife,
    /// The same, but without a retry: a failed `C_Login` is not repeated within a request.
    NewLifeWithoutRetry,
    /// `C_Finalize`, `C_Initialize`.
    Reload,
    /// Reload, if there was none for a while.
    ReloadForMissing,
}

impl Error {
    /// The kind of failure, as the wire names it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::BadUri(_) => ErrorCode::BadUri,
            Error::BadRequest(_) => ErrorCode::BadRequest,
            Error::TokenNotFound(_) => ErrorCode::TokenNotFound,
            Error::KeyNotFound { .. } => ErrorCode::KeyNotFound,
            Error::AmbiguousToken(_) | Error::KeyHidden(_) => ErrorCode::AmbiguousToken,
            Error::AmbiguousKey(_) => ErrorCode::AmbiguousKey,
            Error::AlreadyExists(_) => ErrorCode::AlreadyExists,
            Error::OutOfScope(_) => ErrorCode::OutOfScope,
            Error::KeyChanged { .. } => ErrorCode::KeyChanged,
            Error::UnsupportedScheme { .. } => ErrorCode::UnsupportedScheme,
            Error::PinRequired { .. } => ErrorCode::PinRequired,
            Error::PinIncorrect(_) => ErrorCode::PinIncorrect,
            Error::PinLocked(_) => ErrorCode::PinLocked,
            Error::PinGuarded(_) => ErrorCode::PinGuarded,
            Error::NotAllowed(_) => ErrorCode::NotAllowed,
            Error::NotSupported(_) => ErrorCode::NotSupported,
            Error::Busy(_) | Error::Changed { .. } => ErrorCode::Busy,
            Error::Timeout(_) => ErrorCode::Timeout,
            Error::Misconfigured(_) => ErrorCode::Misconfigured,
            Error::ModuleUnavailable { .. } | Error::Load { .. } => ErrorCode::ModuleUnavailable,
            Error::Module {
                rv: RvError::FunctionNotSupported,
                ..
            } => ErrorCode::NotSupported,
            Error::Module { .. } | Error::Login { .. } | Error::BadAnswer(_) => ErrorCode::Module,
            Error::Unfinished { cause, .. } => cause.code(),
            Error::Internal(_) => ErrorCode::Internal,
        }
    }

    /// Whether it says why a token is not logged in: for want of the right PIN.
    pub(crate) fn is_of_pin(&self) -> bool {
        matches!(
            self,
            Error::PinRequired { .. }
                | Error::PinIncorrect(_)
                | Error::PinLocked(_)
                | Error::PinGuarded(_)
        )
    }

    /// What the failure calls for before one more try: decided by the return value of the module and the
    /// function that gave it.
    pub(crate) fn recovery(&self) -> Recovery {
        let (rv, function) = match self {
            Error::Module { rv, function } | Error::Login { rv, function, .. } => (rv, function),
            Error::TokenNotFound(_)
            | Error::KeyHidden(_)
            | Error::KeyNotFound {
                names_token: false, ..
            } => return Recovery::ReloadForMissing,
            _ => return Recovery::None,
        };
        let recovery = match rv {
            RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid => Recovery::FindKeyAgain,
            RvError::CryptokiNotInitialized => Recovery::Reload,
            RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::UserNotLoggedIn
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::DeviceRemoved
            | RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::HostMemory
            | RvError::FunctionFailed
            | RvError::GeneralError => Recovery::NewLife,
            _ => Recovery::None,
        };
        match (recovery, function) {
            (Recovery::None, _) => Recovery::None,
            (_, Function::Login) => Recovery::NewLifeWithoutRetry,
            (recovery, _) => recovery,
        }
    }

    /// What clients are told: the beginning, where it lists very much.
    pub(crate) fn message(&self) -> String {
        let mut message = self.to_string();
        if message.len() > LONGEST_MESSAGE {
            let mut ends = (0..=LONGEST_MESSAGE).rev();
            let end = ends.find(|end| message.is_char_boundary(*end));
            message.truncate(end.unwrap_or_default());
            message.push('…');
        }
        message
    }

    /// What is told of it to who may not list all tokens: only the daemon knows such users.
    #[cfg(feature = "daemon")]
    pub(crate) fn without_details(self) -> Error {
        match self {
            Error::ModuleUnavailable { retry_in, .. } => Error::ModuleUnavailable {
                cause: HIDDEN_TROUBLE.into(),
                retry_in,
            },
            other => other,
        }
    }

    /// Adds to the message of a miss what may become of it, to that of a failure what may be behind it.
    pub(crate) fn with_hint(self, hint: &str) -> Error {
        match self {
            Error::TokenNotFound(message) => Error::TokenNotFound(message + hint),
            Error::KeyNotFound { why, names_token } => Error::KeyNotFound {
                why: why + hint,
                names_token,
            },
            Error::KeyHidden(message) => Error::KeyHidden(message + hint),
            Error::Login {
                token,
                rv,
                function,
                hint: before,
            } => Error::Login {
                token,
                rv,
                function,
                hint: before + hint,
            },
            other => other,
        }
    }

    /// The function of the module that has failed, where one has.
    pub(crate) fn function(&self) -> Option<Function> {
        match self {
            Error::Module { function, .. } | Error::Login { function, .. } => Some(*function),
            _ => None,
        }
    }

    /// The return value of the module, where it is the module that failed.
    pub fn rv(&self) -> Option<RvError> {
        match self {
            Error::Module { rv, .. } | Error::Login { rv, .. } => Some(*rv),
            Error::Unfinished { cause, .. } => cause.rv(),
            _ => None,
        }
    }
}

impl From<cryptoki::error::Error> for Error {
    fn from(error: cryptoki::error::Error) -> Self {
        use cryptoki::error::Error as Cryptoki;
        match error {
            Cryptoki::Pkcs11(rv, function) => Error::Module { rv, function },
            Cryptoki::NullFunctionPointer => {
                Error::NotSupported("the PKCS#11 module lacks a function that this needs".into())
            }
            other => Error::BadAnswer(format!(
                "the PKCS#11 module gave an unusable answer: {other}"
            )),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut failure = Failure::new(error.code(), error.message());
        let cause = match error {
            Error::Unfinished { cause, .. } => cause,
            other => other,
        };
        if let Error::Module { rv, function } | Error::Login { rv, function, .. } = cause {
            failure.function = Some(function_name(*function));
            failure.ckr = Some(ckr_name(*rv));
        }
        failure
    }
}

/// Names that a message lists at most.
const MOST_LISTED: usize = 5;

/// The first names of a list, and how many more there are.
pub(crate) fn list(all: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut all = all.into_iter();
    let named: Vec<_> = all.by_ref().take(MOST_LISTED).collect();
    let named: Vec<_> = named.iter().map(AsRef::as_ref).collect();
    match all.count() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// What to do after return values that are about PINs and cards.
fn advice(rv: RvError) -> &'static str {
    match rv {
        RvError::UserPinNotInitialized => {
            "; the token has no user PIN yet: set one with InitToken, ChangePin with reset, or the token's own tool"
        }
        RvError::PinExpired => {
            "; the PIN is right but has expired: set another one with ChangePin or the token's own tool"
        }
        RvError::UserTypeInvalid => {
            "; the token knows no such user: log in to it with its own tool once, which tells what it wants"
        }
        RvError::UserAnotherAlreadyLoggedIn | RvError::UserTooManyTypes => {
            "; another user, such as the security officer, is logged in to the token: end the program that is"
        }
        RvError::FunctionNotSupported => "; do it with the token's own tool",
        RvError::TokenNotRecognized => {
            "; the PKCS#11 module does not know what is in the slot: put the right card in, the right way round, or \
             configure the module of its maker"
        }
        _ => "",
    }
}

/// `C_Sign returned CKR_DEVICE_REMOVED`
fn ckr(rv: RvError, function: Function) -> String {
    format!("{} returned {}", function_name(function), ckr_name(rv))
}

/// The function as the standard names it: `C_Sign`.
pub fn function_name(function: Function) -> String {
    format!("C_{function:?}")
}

/// The return value as the standard names it: `CKR_DEVICE_REMOVED`.
pub fn ckr_name(rv: RvError) -> String {
    match rv {
        RvError::VendorDefined(code) => format!("CKR_VENDOR_DEFINED ({code:#x})"),
        RvError::UnknownErrorCode(code) => format!("the unknown value {code:#x}"),
        // cryptoki's variants are the standard's names in camel case.
        named => {
            let mut name = String::from("CKR");
            for letter in format!("{named:?}").chars() {
                if letter.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_standard() {
        assert_eq!(ckr_name(RvError::DeviceRemoved), "CKR_DEVICE_REMOVED");
        assert_eq!(ckr_name(RvError::UserNotLoggedIn), "CKR_USER_NOT_LOGGED_IN");
        assert_eq!(
            ckr_name(RvError::VendorDefined(0x8000_0001)),
            "CKR_VENDOR_DEFINED (0x80000001)"
        );
        assert_eq!(function_name(Function::SignInit), "C_SignInit");
    }

    #[test]
    fn a_message_that_lists_very_much_is_cut() {
        let listed = Error::AmbiguousKey("ü".repeat(1 << 20));
        let failure = Failure::from(&listed);
        assert!(failure.message.len() < 4200 && failure.message.ends_with("ü…"));
    }

    #[test]
    fn function_and_ckr_reach_the_client() {
        let failure = Failure::from(&Error::Module {
            rv: RvError::DeviceError,
            function: Function::Sign,
        });
        assert_eq!(failure.code, ErrorCode::Module);
        assert_eq!(failure.function.as_deref(), Some("C_Sign"));
        assert_eq!(failure.ckr.as_deref(), Some("CKR_DEVICE_ERROR"));
        assert!(failure.message.contains("C_Sign returned CKR_DEVICE_ERROR"));
    }
}
