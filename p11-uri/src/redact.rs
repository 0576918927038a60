//! What may be logged of a text that should be a PKCS#11 URI.

use crate::format::{REDACTED, holds_pin};
use crate::uri::Uri;

/// Longest piece of a text that is no URI that [`redact`] shows, in characters.
const SHOWN: usize = 1024;

/// What may be logged of a text that should be a PKCS#11 URI.
///
/// If it is one, it is shown as given but for the PINs. If not, everything after the first `?`, or from
/// the first word `pin` on, is left out, the rest is cut after 1,024 characters, and control characters
/// and others that could fake a log line or drive a terminal are escaped.
///
/// ```
/// use p11_uri::redact;
///
/// assert_eq!(redact("pkcs11:token=a?pin-value=1234&x=y"), "pkcs11:token=a?pin-value=<REDACTED>&x=y");
/// assert_eq!(redact("pkcs11:token=a b?pin-value=1234"), "pkcs11:token=a b?<REDACTED>");
/// ```
pub fn redact(text: &str) -> String {
    if Uri::parse(text).is_ok() {
        return match text.split_once('?') {
            Some((path, query)) => {
                format!("{}?{}", without_pins(path, ';'), without_pins(query, '&'))
            }
            None => without_pins(text, ';'),
        };
    }
    let safe = start_without_pin(text);
    let shown: String = safe.chars().take(SHOWN).collect();
    let mark = if safe.len() < text.len() {
        REDACTED
    } else if shown.len() < safe.len() {
        "…"
    } else {
        ""
    };
    format!("{}{mark}", shown.escape_debug())
}

fn without_pins(list: &str, separator: char) -> String {
    let shown = list
        .split(separator)
        .map(|attribute| match attribute.split_once('=') {
            Some((name, _)) if holds_pin(name) => format!("{name}={REDACTED}"),
            _ => attribute.to_owned(),
        });
    shown
        .collect::<Vec<_>>()
        .join(separator.encode_utf8(&mut [0; 4]))
}

/// The text up to and with the first `?`, or up to the first word that starts with `pin`.
fn start_without_pin(text: &str) -> &str {
    let end = text.find('?').map_or(text.len(), |at| at + 1);
    let start = text.get(..end).unwrap_or_default();
    let lower = start.to_ascii_lowercase();
    let starts_word = |at: usize| {
        let before = lower.get(..at);
        before.is_some_and(|before| !before.ends_with(char::is_alphanumeric))
    };
    let pin = lower.match_indices("pin").find(|(at, _)| starts_word(*at));
    pin.map_or(start, |(at, _)| start.get(..at).unwrap_or_default())
}
