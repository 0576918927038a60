//! PINs go in when a test makes them; a log is held against them when the test ends.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

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
        for secret in self.0.lock().unwrap().iter() {
            if let Some(line) = text.lines().find(|line| line.contains(secret)) {
                panic!("the secret {secret:?} was printed: {line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the secret \"482915\" was printed: pin 482915 accepted")]
    fn a_printed_secret_is_found_with_its_line() {
        let (secrets, later) = (Secrets::default(), Secrets::default());
        secrets.assert_absent("pin 482915 accepted");
        later.add("482915");
        secrets.add_all(&later);
        secrets.assert_absent("first line\npin 482915 accepted\n");
    }
}
