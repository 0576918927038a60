//! What can be wrong with a URI: the place and the reason go in, a message that names the remedy comes out.
//!
//! No message repeats text of the URI but attribute names of RFC 7512 and vendor names of the path: a
//! broken URI may hold a PIN at any place after its `?`.

use crate::MAX_LEN;

/// Why a text is no PKCS#11 URI, or why a URI cannot be used for what was asked of it.
///
/// Positions are byte offsets from the start of the text, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is longer than [`MAX_LEN`]; it was not looked at.
    #[error("a PKCS#11 URI may be at most {MAX_LEN} bytes long, this one has {length}")]
    TooLong {
        /// Length of the text in bytes.
        length: usize,
    },
    /// The text does not start with `pkcs11:`.
    #[error("a PKCS#11 URI starts with `pkcs11:`, as in `pkcs11:token=my-token;object=my-key`")]
    Scheme,
    /// `//` follows the scheme; a PKCS#11 URI has no authority (RFC 7512 section 2.3).
    #[error(
        "`//` at byte {position}: a PKCS#11 URI names no host, write the attributes right after `pkcs11:`"
    )]
    Authority {
        /// Where the `//` is.
        position: usize,
    },
    /// A raw `#`; a PKCS#11 URI has no fragment (RFC 7512 section 2.3).
    #[error(
        "`#` at byte {position}: a PKCS#11 URI has no fragment, write `%23` for a `#` in a value"
    )]
    Fragment {
        /// Where the `#` is.
        position: usize,
    },
    /// A character that must be percent-encoded where it is.
    #[error(
        "the character at byte {position} must be percent-encoded (a space is `%20`, a `/` is `%2F`, a `;` is `%3B`)"
    )]
    Character {
        /// Where the character is.
        position: usize,
    },
    /// `%` without two hexadecimal digits.
    #[error(
        "`%` at byte {position} is not followed by two hexadecimal digits; a literal percent sign is `%25`"
    )]
    PercentEncoding {
        /// Where the `%` is.
        position: usize,
    },
    /// An attribute without `=`, or nothing between two separators.
    #[error(
        "the attribute at byte {position} has no `=`; write `name=value`, and no separator without an attribute"
    )]
    NoEquals {
        /// Where the attribute starts.
        position: usize,
    },
    /// An attribute name that is empty or holds other characters than letters, digits, `-` and `_`.
    #[error(
        "the attribute at byte {position} has no valid name; names are letters, digits, `-` and `_`"
    )]
    Name {
        /// Where the attribute starts.
        position: usize,
    },
    /// The same attribute a second time.
    #[error("`{attribute}` at byte {position} is there already; keep one of the two")]
    Duplicate {
        /// Name of the attribute.
        attribute: String,
        /// Where the second one starts.
        position: usize,
    },
    /// A path attribute after the `?`, or a query attribute before it.
    #[error(
        "`{attribute}` at byte {position} is on the wrong side of the `?`; token, slot, library and object attributes stand before it, separated by `;`, pin and module attributes after it, separated by `&`"
    )]
    Misplaced {
        /// Name of the attribute.
        attribute: String,
        /// Where it is.
        position: usize,
    },
    /// `type` is empty or none of the types of RFC 7512.
    #[error("`type` at byte {position} must be one of cert, data, private, public, secret-key")]
    Type {
        /// Where the attribute starts.
        position: usize,
    },
    /// `slot-id` is no decimal number that fits 64 bits.
    #[error("`slot-id` at byte {position} must be a decimal number below 2^64")]
    SlotId {
        /// Where the attribute starts.
        position: usize,
    },
    /// `library-version` is not one or two decimal numbers of one byte each.
    #[error(
        "`library-version` at byte {position} must be `major` or `major.minor`, each a number from 0 to 255"
    )]
    LibraryVersion {
        /// Where the attribute starts.
        position: usize,
    },
    /// A text value that is not UTF-8 after percent-decoding.
    #[error("the value of `{attribute}` at byte {position} is not UTF-8 text")]
    NotUtf8 {
        /// Name of the attribute.
        attribute: String,
        /// Where the attribute starts.
        position: usize,
    },
    /// Both `pin-value` and `pin-source` are given (RFC 7512 section 2.4).
    #[error(
        "`pin-value` and `pin-source` exclude each other; the second one is at byte {position}"
    )]
    TwoPins {
        /// Where the second of the two starts.
        position: usize,
    },
    /// `pin-source` names no absolute path of a local file.
    #[error(
        "`pin-source` must be `file:/path/to/file` or an absolute path; programs and other schemes are not run or read"
    )]
    PinSource,
    /// An attribute that only the configuration of a service may carry, never a request.
    #[error(
        "`{attribute}` is not accepted in a request; it may only stand in the server's own URI"
    )]
    NotInRequest {
        /// Name of the attribute.
        attribute: &'static str,
    },
}

impl Error {
    /// The byte offset in the text where the error is, if it is at one place.
    pub fn position(&self) -> Option<usize> {
        match *self {
            Self::Scheme => Some(0),
            Self::Authority { position }
            | Self::Fragment { position }
            | Self::Character { position }
            | Self::PercentEncoding { position }
            | Self::NoEquals { position }
            | Self::Name { position }
            | Self::Duplicate { position, .. }
            | Self::Misplaced { position, .. }
            | Self::Type { position }
            | Self::SlotId { position }
            | Self::LibraryVersion { position }
            | Self::NotUtf8 { position, .. }
            | Self::TwoPins { position } => Some(position),
            Self::TooLong { .. } | Self::PinSource | Self::NotInRequest { .. } => None,
        }
    }
}
