//! The text of an old server's error enters, a failure with a code leaves.

use p11_proto::{ErrorCode, Failure};

/// What the phrases of old servers mean. They come in chains, the general before the particular, so
/// the order counts: the first that is found decides.
const PHRASES: [(&str, ErrorCode); 7] = [
    ("The specified PIN is incorrect", ErrorCode::PinIncorrect),
    ("Didn't find a slot to use", ErrorCode::TokenNotFound),
    (
        "No token matching the given URI was found",
        ErrorCode::TokenNotFound,
    ),
    (
        "Found multiple initialized tokens",
        ErrorCode::AmbiguousToken,
    ),
    ("Failed to find a key", ErrorCode::KeyNotFound),
    ("Failed to find a private key", ErrorCode::KeyNotFound),
    ("Failed to parse the received frame", ErrorCode::Unsupported),
];

/// A failure of the kind that the text tells, [`ErrorCode::Unknown`] where it tells none.
pub(super) fn failure(text: String) -> Failure {
    let known = PHRASES.iter().find(|(phrase, _)| text.contains(phrase));
    Failure::new(known.map_or(ErrorCode::Unknown, |(_, code)| *code), text)
}
