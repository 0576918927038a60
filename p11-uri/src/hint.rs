//! What a URI that matches nothing was perhaps meant to be.

use crate::Uri;

/// Names that people and programs write, and those of RFC 7512 section 2.3.
const OFTEN_WRITTEN: [(&str, &str); 13] = [
    ("label", "object"),
    ("key", "object"),
    ("name", "object"),
    ("object-label", "object"),
    ("key-id", "id"),
    ("keyid", "id"),
    ("object-type", "type"),
    ("objecttype", "type"),
    ("class", "type"),
    ("token-label", "token"),
    ("serial-number", "serial"),
    ("slot", "slot-id"),
    ("slotid", "slot-id"),
];

impl Uri {
    /// What to write instead, where the URI can match nothing, or nearly nothing.
    pub fn hint(&self) -> Option<String> {
        if let Some((name, _)) = self.vendor_path().next() {
            let meant = OFTEN_WRITTEN.iter().find(|(written, _)| *written == name);
            let advice = match meant {
                Some((_, meant)) => format!("write `{meant}=…`"),
                None => "leave it out".into(),
            };
            return Some(format!(
                "`{name}=…` is no attribute that a token or object has; {advice}"
            ));
        }
        let id = self.id()?;
        let is_hex = id.iter().all(u8::is_ascii_hexdigit);
        if id.is_empty() || id.len() % 2 == 1 || !is_hex {
            return None;
        }
        let bytes = id.chunks(2).map(|digits| String::from_utf8_lossy(digits));
        let bytes: Vec<_> = bytes.map(|digits| format!("%{digits}")).collect();
        Some(format!(
            "the `id` is the text {}; bytes are written `id={}`",
            String::from_utf8_lossy(id),
            bytes.concat()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(uri: &str) -> Option<String> {
        Uri::parse(uri).unwrap().hint()
    }

    #[test]
    fn an_unknown_attribute_is_named_with_the_one_that_was_meant() {
        for (uri, meant) in [
            ("pkcs11:label=key", "write `object=…`"),
            ("pkcs11:token=t;object-type=private", "write `type=…`"),
            ("pkcs11:vendor-thing=1", "leave it out"),
        ] {
            let hint = hint(uri).unwrap();
            assert!(hint.contains(meant), "{hint}");
        }
        assert_eq!(hint("pkcs11:token=t;object=key;type=private"), None);
    }

    #[test]
    fn an_id_of_hexadecimal_digits_may_be_meant_as_bytes() {
        let hint_of_id = hint("pkcs11:id=01aF").unwrap();
        assert!(hint_of_id.contains("`id=%01%aF`"), "{hint_of_id}");
        for uri in [
            "pkcs11:id=%01",
            "pkcs11:id=012",
            "pkcs11:id=key1",
            "pkcs11:id=",
        ] {
            assert_eq!(hint(uri), None, "{uri}");
        }
    }
}
