//! What is wrong with a URI, at which byte, and what to write instead.
//!
//! No text repeats a part of the URI but attribute names of RFC 7512 and vendor names of the path: a broken
//! URI may hold a PIN at any place after its `?`.

use std::fmt;

/// Longest text that is parsed, in bytes.
pub const MAX_LEN: usize = 16 * 1024;

/// Why a text is no PKCS#11 URI, or why a URI cannot be used for what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    position: Option<usize>,
}

/// What is wrong, without the place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is longer than [`MAX_LEN`]: it has this many bytes. It was not looked at.
    TooLong(usize),
    /// The text does not start with `pkcs11:`.
    Scheme,
    /// `//` follows the scheme; a PKCS#11 URI has no authority (RFC 7512 section 2.3).
    Authority,
    /// A raw `#`; a PKCS#11 URI has no fragment (RFC 7512 section 2.3).
    Fragment,
    /// A character that must be percent-encoded where it is.
    Character,
    /// `%` without two hexadecimal digits.
    PercentEncoding,
    /// An attribute without `=`, or nothing between two separators.
    NoEquals,
    /// An attribute name that is empty or holds other characters than letters, digits, `-` and `_`.
    Name,
    /// The attribute of this name a second time.
    Duplicate(String),
    /// The path attribute of this name after the `?`, or the query attribute before it.
    Misplaced(String),
    /// `type` is empty or none of the types of RFC 7512.
    Type,
    /// `slot-id` is no decimal number that fits 64 bits.
    SlotId,
    /// `library-version` is not one or two decimal numbers of one byte each.
    LibraryVersion,
    /// The value of the attribute of this name is not UTF-8 after percent-decoding.
    NotUtf8(String),
    /// Both `pin-value` and `pin-source` are given (RFC 7512 section 2.4).
    TwoPins,
    /// `pin-source` names no absolute path of a local file.
    PinSource,
    /// The attribute of this name may only be in the configuration of a service, never in a request.
    NotInRequest(String),
}

impl Error {
    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Where it is, as a byte offset from the start of the text, counted from 0. An attribute that is wrong
    /// as a whole is where its name starts. `None` if the error is not at one place.
    pub fn position(&self) -> Option<usize> {
        self.position
    }
}

impl ErrorKind {
    pub(crate) fn at(self, position: usize) -> Error {
        Error {
            kind: self,
            position: Some(position),
        }
    }
}

impl From<ErrorKind> for Error {
    /// An error that is not at one place.
    fn from(kind: ErrorKind) -> Self {
        Error {
            kind,
            position: None,
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.position.unwrap_or_default();
        match &self.kind {
            ErrorKind::TooLong(length) => write!(
                f,
                "a PKCS#11 URI may be at most {MAX_LEN} bytes long, this one has {length}"
            ),
            ErrorKind::Scheme => f.write_str(
                "a PKCS#11 URI starts with `pkcs11:`, as in `pkcs11:token=my-token;object=my-key`",
            ),
            ErrorKind::Authority => write!(
                f,
                "`//` at byte {at}: a PKCS#11 URI names no host, write the attributes right after \
                 `pkcs11:`"
            ),
            ErrorKind::Fragment => write!(
                f,
                "`#` at byte {at}: a PKCS#11 URI has no fragment, write `%23` for a `#` in a value"
            ),
            ErrorKind::Character => write!(
                f,
                "the character at byte {at} must be percent-encoded (a space is `%20`, a `/` is \
                 `%2F`, a `;` is `%3B`)"
            ),
            ErrorKind::PercentEncoding => write!(
                f,
                "`%` at byte {at} is not followed by two hexadecimal digits; a literal percent sign \
                 is `%25`"
            ),
            ErrorKind::NoEquals => write!(
                f,
                "the attribute at byte {at} has no `=`; write `name=value`, and no separator without \
                 an attribute"
            ),
            ErrorKind::Name => write!(
                f,
                "the attribute at byte {at} has no valid name; names are letters, digits, `-` and `_`"
            ),
            ErrorKind::Duplicate(name) => {
                write!(
                    f,
                    "`{name}` at byte {at} is there already; keep one of the two"
                )
            }
            ErrorKind::Misplaced(name) => write!(
                f,
                "`{name}` at byte {at} is on the wrong side of the `?`; token, slot, library and \
                 object attributes stand before it, separated by `;`, pin and module attributes \
                 after it, separated by `&`"
            ),
            ErrorKind::Type => write!(
                f,
                "`type` at byte {at} must be one of cert, data, private, public, secret-key"
            ),
            ErrorKind::SlotId => {
                write!(
                    f,
                    "`slot-id` at byte {at} must be a decimal number below 2^64"
                )
            }
            ErrorKind::LibraryVersion => write!(
                f,
                "`library-version` at byte {at} must be `major` or `major.minor`, each a number from \
                 0 to 255"
            ),
            ErrorKind::NotUtf8(name) => {
                write!(f, "the value of `{name}` at byte {at} is not UTF-8 text")
            }
            ErrorKind::TwoPins => write!(
                f,
                "`pin-value` and `pin-source` exclude each other; the second one is at byte {at}"
            ),
            ErrorKind::PinSource => f.write_str(
                "`pin-source` must be `file:/path/to/file` or an absolute path; programs and other \
                 schemes are not run or read",
            ),
            ErrorKind::NotInRequest(name) => write!(
                f,
                "`{name}` is not accepted in a request; it may only stand in the server's own URI"
            ),
        }
    }
}
