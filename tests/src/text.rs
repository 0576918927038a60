//! Assertions on what a message or a log says.

/// Asserts that a text contains each part.
#[track_caller]
pub fn assert_contains(text: impl AsRef<str>, parts: impl IntoIterator<Item = impl AsRef<str>>) {
    let text = text.as_ref();
    for part in parts {
        let part = part.as_ref();
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

/// Asserts that a text contains each part, after the one before.
#[track_caller]
pub fn assert_in_order(text: impl AsRef<str>, parts: impl IntoIterator<Item = impl AsRef<str>>) {
    let mut rest = text.as_ref();
    for part in parts {
        let part = part.as_ref();
        let found = rest.split_once(part);
        let (_, after) = found.unwrap_or_else(|| panic!("no {part:?} in its place in: {rest}"));
        rest = after;
    }
}
