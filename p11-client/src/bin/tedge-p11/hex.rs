//! Bytes as people write them.

/// Hexadecimal digits, with colons between them or not; `None` for anything else, and for none.
pub fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<_> = digits
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16))
        .collect();
    let pairs = digits.chunks(2).map(|pair| match pair {
        [Some(high), Some(low)] => u8::try_from(16 * high + low).ok(),
        _ => None,
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    bytes.filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_read_as_other_tools_print_them() {
        assert_eq!(bytes("01aB").unwrap(), [1, 0xab]);
        assert_eq!(bytes("01:ab").unwrap(), [1, 0xab]);
        for bad in ["", "1", "012", "0x01", "key"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
