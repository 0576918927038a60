//! What may be logged of a text that should be a PKCS#11 URI.

use std::fmt;

use crate::format::REDACTED;
use crate::uri::Uri;
use percent_encoding::percent_decode;
use secrecy::zeroize::Zeroizing;

/// Longest text that [`redact`] answers, in bytes.
const SHOWN: usize = 256;

/// A text that is encoded more often than this is shown in no case.
const DECODED: usize = 8;

/// So many bytes after the word `pin` the `=` may come that makes it the name of a PIN.
const NAME: usize = 16;

/// What may be logged of a text that should be a PKCS#11 URI, in at most 256 bytes.
///
/// Nothing is shown of what stands after the first `?`. Before it, the first value that looks like a PIN, or
/// that has something like a PIN attribute in it, however often it was percent-encoded, is left out with all
/// that follows; of a text that is no URI it is all from the first attribute on in which a word begins with `pin`.
/// Control characters and others that could fake a log line or drive a terminal are escaped.
///
/// ```
/// use p11_uri::redact;
///
/// assert_eq!(redact("pkcs11:token=a?pin-value=1234&x=y"), "pkcs11:token=a?<REDACTED>");
/// assert_eq!(redact("pkcs11:object=b;token=a%3fPin=1234"), "pkcs11:object=b;token=<REDACTED>");
/// ```
pub fn redact(text: &str) -> String {
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    let safe = match is_plain(path) {
        true => start(path, SHOWN),
        false => start_without_pin(path, Uri::parse(text).is_ok()),
    };
    let mark = match query {
        _ if safe.len() < path.len().min(SHOWN) => REDACTED,
        None => "",
        Some("") => "?",
        Some(_) => "?<REDACTED>",
    };
    let mut shown = escape(safe);
    if shown.len() + mark.len() <= SHOWN {
        return shown + mark;
    }
    shown.truncate(start(&shown, SHOWN - '…'.len_utf8()).len());
    shown + "…"
}

impl fmt::Debug for Uri {
    /// As [`redact`], since it ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uri({})", redact(&self.to_string()))
    }
}

impl Uri {
    /// What may be said of it to people: as [`redact`].
    pub fn shown(&self) -> String {
        redact(&self.without_query().to_string())
    }
}

/// Whether nothing in it could be a PIN, told at a glance: nearly every URI is so, and each request logs one.
fn is_plain(path: &str) -> bool {
    let decoded = Zeroizing::new(percent_decode(path.as_bytes()).collect::<Vec<u8>>());
    let is_pin = |letters: &[u8]| letters.eq_ignore_ascii_case(b"pin");
    !decoded.contains(&b'%') && !decoded.windows(3).any(is_pin)
}

fn escape(text: &str) -> String {
    let needs_none =
        |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
    match text.bytes().all(needs_none) {
        true => text.into(),
        false => text.escape_debug().to_string(),
    }
}

/// The path up to the first value that could hold a PIN. What is too long to be shown is not looked at.
fn start_without_pin(path: &str, is_uri: bool) -> &str {
    let path = start(path, SHOWN);
    let mut begin = 0;
    for attribute in path.split(';') {
        if could_hold_pin(attribute, is_uri) {
            let name = attribute.split_once('=').map(|(name, _)| name);
            let shown = match name.filter(|name| is_name(name)) {
                Some(name) => name.len() + 1,
                None => 0,
            };
            return path.get(..begin + shown).unwrap_or_default();
        }
        begin += attribute.len() + 1;
    }
    path
}

/// Whether it is the name of an attribute and no more, with or without the scheme before it.
fn is_name(text: &str) -> bool {
    let name = text.strip_prefix("pkcs11:").unwrap_or(text);
    name.bytes()
        .all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_'))
}

/// As much of a text as fits into so many bytes.
fn start(text: &str, bytes: usize) -> &str {
    let mut ends = (0..=bytes.min(text.len())).rev();
    let end = ends.find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

fn could_hold_pin(attribute: &str, is_uri: bool) -> bool {
    let mut text = Zeroizing::new(attribute.as_bytes().to_ascii_lowercase());
    for _ in 0..DECODED {
        if names_pin(&text, is_uri) {
            return true;
        }
        let decoded = Zeroizing::new(percent_decode(&text).collect::<Vec<u8>>());
        if decoded == text {
            return false;
        }
        text = Zeroizing::new(decoded.to_ascii_lowercase());
    }
    true
}

/// Whether it has something like `pin=`, `so-pin:` or `pin value =`, or, in what is no URI, a word that begins with
/// `pin`.
fn names_pin(text: &[u8], is_uri: bool) -> bool {
    let is_pin = |at: usize| {
        let (before, pin) = text.split_at(at);
        let Some(after) = pin.strip_prefix(b"pin") else {
            return false;
        };
        let begins_word = !before.last().is_some_and(u8::is_ascii_alphanumeric);
        let mut after = after.iter().take(NAME);
        after.any(|byte| matches!(byte, b'=' | b':')) || (begins_word && !is_uri)
    };
    (0..text.len()).any(is_pin)
}
