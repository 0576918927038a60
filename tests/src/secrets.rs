//! The PINs of a test, which must not appear in any log.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// Every PIN that a test of this package uses. All logs are held against all of them, so that a test
/// which forgets to name one to its server is covered, too.
const EVERY: &[&str] = &[
    "000001",
    "111999",
    "123456",
    "13579135",
    "24682468",
    "305419",
    "482915",
    "736104",
    "771122",
    "902461",
    "another-pin",
    "brand-new-officer",
    "brand-new-pin",
    "not-the-pin",
    "officer's PIN",
    "open-barley",
    "open-sesame",
    "p:%/é?&4",
    "sesame-street",
    "user's PIN",
    "wrong-pin-1",
    "wrong-pin-2",
];

/// What must appear in no log. Clones share one list, so a PIN made after the server started counts too.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Mutex<BTreeSet<String>>>);

impl Secrets {
    /// Adds a secret.
    pub fn add(&self, secret: &str) {
        assert!(secret.len() >= 4, "too short to be told from other text");
        self.0.lock().unwrap().insert(secret.into());
    }

    /// Adds all secrets of another list.
    pub fn add_all(&self, others: &Self) {
        let others = others.0.lock().unwrap().clone();
        self.0.lock().unwrap().extend(others);
    }

    /// Panics if the text shows a secret, with the line that does.
    pub fn assert_absent(&self, text: &str) {
        let secrets = self.0.lock().unwrap();
        for line in text.lines().map(without_numbers) {
            if let Some(secret) = secrets.iter().find(|secret| line.contains(*secret)) {
                panic!("the secret {secret:?} was printed: {line}");
            }
            if let Some(secret) = EVERY.iter().find(|secret| has_word(&line, secret)) {
                panic!("the PIN {secret:?} of some test was printed: {line}");
            }
        }
    }
}

/// A line without the numbers that may be any: its time, process ids and durations.
fn without_numbers(line: &str) -> String {
    let words = line.split(' ');
    let is_any = |word: &&str| {
        ["pid=", "duration_us="]
            .iter()
            .any(|name| word.starts_with(name))
            || word.ends_with('Z') && word.contains(':')
    };
    words
        .filter(|word| !is_any(word))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether the text stands there, and not as a part of a longer word or number.
fn has_word(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + text.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    #[should_panic(expected = "the secret \"hush-hush\" was printed: pin hush-hush accepted")]
    fn a_printed_secret_is_found_with_its_line() {
        let (secrets, later) = (Secrets::default(), Secrets::default());
        secrets.assert_absent("pin hush-hush accepted");
        later.add("hush-hush");
        secrets.add_all(&later);
        secrets.assert_absent("first line\npin hush-hush accepted\n");
    }

    #[test]
    #[should_panic(expected = "the PIN \"open-sesame\" of some test was printed")]
    fn a_pin_of_any_test_is_found_though_nobody_has_named_it() {
        Secrets::default().assert_absent("logging in with \"open-sesame\"");
    }

    #[test]
    fn numbers_that_may_be_any_are_no_pins() {
        let line =
            "2026-01-01T10:20:30.482915Z  INFO audit: pid=482915 duration_us=482915 id=1482915";
        Secrets::default().assert_absent(line);
    }

    /// What follows these words in the sources, up to the end of the literal, is a PIN.
    const BEFORE_A_PIN: &[&str] = &[
        "PIN: &str = \"",
        "NEW: &str = \"",
        "RIGHT: &str = \"",
        "WRONG: &str = \"",
        "WRONG_TOO: &str = \"",
        "Pin::from(\"",
        "pin: Some(\"",
        "?pin-value=",
    ];
    /// An error, in the words of old servers.
    const NO_PIN: &str = "The specified PIN is incorrect";

    #[test]
    fn every_pin_of_the_tests_is_among_them() {
        let mut pins = BTreeSet::new();
        for folder in ["src", "tests"] {
            collect(
                &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
                &mut pins,
            );
        }
        assert!(pins.contains("open-sesame"), "none is found: {pins:?}");
        let missing: Vec<_> = pins
            .iter()
            .filter(|pin| !EVERY.contains(&pin.as_str()))
            .collect();
        assert!(missing.is_empty(), "add {missing:?} to EVERY");
    }

    fn collect(path: &Path, pins: &mut BTreeSet<String>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                collect(&entry.unwrap().path(), pins);
            }
        } else if !path.ends_with("secrets.rs") {
            let text = fs::read_to_string(path).unwrap();
            for words in BEFORE_A_PIN {
                for after in text.split(words).skip(1) {
                    let pin = after.split(['"', '\\', '{', '<']).next().unwrap();
                    if pin.len() >= 4 && pin != NO_PIN {
                        pins.insert(pin.into());
                    }
                }
            }
        }
    }
}
