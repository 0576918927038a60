//! PEM of public keys (RFC 7468).

use base64ct::{Base64, Encoding};

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// These bytes under the label `PUBLIC KEY`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut pem = BEGIN.to_owned();
    for (place, digit) in Base64::encode_string(bytes).chars().enumerate() {
        if place % 64 == 0 {
            pem.push('\n');
        }
        pem.push(digit);
    }
    pem + "\n" + END + "\n"
}

/// The bytes under the label `PUBLIC KEY`.
pub(crate) fn decode(pem: &str) -> Option<Vec<u8>> {
    let text = pem.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let base64: String = text.split_ascii_whitespace().collect();
    Base64::decode_vec(&base64).ok()
}
