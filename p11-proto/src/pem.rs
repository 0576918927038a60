//! PEM (RFC 7468) of public keys and key references.

use base64ct::{Base64, Encoding};

/// These bytes under a label.
pub(crate) fn encode(label: &str, bytes: &[u8]) -> String {
    let mut pem = begin(label);
    for (place, digit) in Base64::encode_string(bytes).chars().enumerate() {
        if place % 64 == 0 {
            pem.push('\n');
        }
        pem.push(digit);
    }
    pem + "\n" + &end(label) + "\n"
}

/// The bytes under a label, in a text that has nothing else.
pub(crate) fn decode(label: &str, pem: &str) -> Option<Vec<u8>> {
    let text = pem.trim().strip_prefix(&begin(label))?;
    let text = text.strip_suffix(&end(label))?;
    let base64: String = text.split_ascii_whitespace().collect();
    Base64::decode_vec(&base64).ok()
}

/// The first PEM of this label in a text that may have others.
pub(crate) fn find<'a>(label: &str, text: &'a str) -> Option<&'a str> {
    let end = end(label);
    let (_, from) = text.split_at_checked(text.find(&begin(label))?)?;
    from.get(..from.find(&end)? + end.len())
}

fn begin(label: &str) -> String {
    format!("-----BEGIN {label}-----")
}

fn end(label: &str) -> String {
    format!("-----END {label}-----")
}
