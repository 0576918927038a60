//! The PIN in an RFC 7512 URI.

use p11_proto::Pin;

/// Splits a URI into one without `pin-value` (RFC 7512 section 2.4) and the PIN.
///
/// The PIN in the URI wins over the one beside it, as on the server. A value that is not
/// percent-encoded UTF-8 is left in the URI: the server refuses it.
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
#[cfg(feature = "tedge1")]
pub(crate) fn without_query(uri: &str) -> &str {
    uri.split_once('?').map_or(uri, |(path, _)| path)
}

/// The text of a percent-encoded value (RFC 3986 section 2.1); `None` for a malformed one.
fn percent_decoded(value: &str) -> Option<Pin> {
    // With the capacity of the PIN: a buffer that grows or shrinks would leave copies in memory.
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

/// The value of a hexadecimal digit.
pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
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
