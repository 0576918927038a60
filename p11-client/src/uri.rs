//! A key's URI as the caller wrote it goes in, the same without its PIN, and the PIN, come out.

use p11_proto::Pin;

/// Takes `pin-value` (RFC 7512 section 2.4) out of a URI, so that no URI here holds a secret.
///
/// It wins over a PIN given beside the URI, as it would on the server. A value that is not
/// percent-encoded UTF-8 stays where it is: to refuse a malformed URI is the server's part.
pub(crate) fn split_pin(uri: &str, pin: Option<Pin>) -> (String, Option<Pin>) {
    let Some((path, query)) = uri.split_once('?') else {
        return (uri.to_owned(), pin);
    };
    let in_uri = query
        .split('&')
        .find_map(|attribute| attribute.strip_prefix("pin-value="));
    let Some(in_uri) = in_uri.and_then(percent_decoded) else {
        return (uri.to_owned(), pin);
    };
    let rest: Vec<_> = query
        .split('&')
        .filter(|attribute| !attribute.starts_with("pin-value="))
        .collect();
    let uri = match rest.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", rest.join("&")),
    };
    (uri, Some(in_uri))
}

/// A URI without its query (RFC 7512 section 2.4), where a PIN may stand.
pub(crate) fn without_query(uri: &str) -> &str {
    uri.split_once('?').map_or(uri, |(path, _)| path)
}

/// The bytes that pairs of hex digits stand for, as in the listings of tedge1.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().map(hex_digit).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks();
    let bytes = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    rest.is_empty().then_some(bytes)
}

/// The text of a percent-encoded value (RFC 3986 section 2.1).
fn percent_decoded(value: &str) -> Option<Pin> {
    // Exactly as long as the PIN, so that nothing is copied, and left behind, later.
    let length = value.len().saturating_sub(2 * value.matches('%').count());
    let mut decoded = Vec::with_capacity(length);
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Pin::from)
}

fn hex_digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(uri: &str, pin: Option<&str>) -> (String, Option<String>) {
        let (uri, pin) = split_pin(uri, pin.map(Pin::from));
        (uri, pin.map(|pin| pin.expose().to_owned()))
    }

    #[test]
    fn a_pin_in_the_uri_leaves_it_and_wins() {
        let expected = (
            "pkcs11:token=a?x=1&y=2".to_owned(),
            Some("1?2%ä".to_owned()),
        );
        let uri = "pkcs11:token=a?x=1&pin-value=1?2%25%c3%A4&y=2";
        assert_eq!(split(uri, None), expected);
        assert_eq!(split(uri, Some("other")), expected);
        assert_eq!(
            split("pkcs11:token=a?pin-value=1234", None),
            ("pkcs11:token=a".to_owned(), Some("1234".to_owned()))
        );
    }

    #[test]
    fn a_uri_without_a_pin_stays_as_it_is() {
        for uri in [
            "pkcs11:token=a",
            "pkcs11:token=a?module-name=b",
            "pkcs11:pin-value=1",
            "",
        ] {
            assert_eq!(
                split(uri, Some("1234")),
                (uri.to_owned(), Some("1234".to_owned()))
            );
        }
    }

    #[test]
    fn a_malformed_pin_is_left_for_the_server_to_refuse() {
        for uri in [
            "pkcs11:?pin-value=%4",
            "pkcs11:?pin-value=%zz",
            "pkcs11:?pin-value=%ff",
        ] {
            assert_eq!(split(uri, None), (uri.to_owned(), None));
        }
    }
}
