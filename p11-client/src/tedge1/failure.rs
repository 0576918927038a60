//! Error codes for the texts of old servers, which have none.

use p11_proto::{ErrorCode, Failure};

/// The phrases that tell a code. Error texts are chains from the general to the particular, so the
/// order counts: the first phrase that is found decides.
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

/// The failure that a text stands for, [`ErrorCode::Unknown`] where no phrase is found.
pub(super) fn failure(text: String) -> Failure {
    let found = PHRASES.iter().find(|(phrase, _)| text.contains(phrase));
    Failure::new(found.map_or(ErrorCode::Unknown, |(_, code)| *code), text)
}
