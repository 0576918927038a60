//! A PIN from the moment it is read to `C_Login`: wiped when dropped, never printed.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// The PIN of a token's user or security officer.
///
/// Its memory is wiped when it is dropped. `Debug` prints a placeholder; there is no `Display`.
#[derive(Clone)]
pub struct Pin(SecretString);

impl Pin {
    /// The PIN itself. The name is the warning: whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Pin {
    fn from(pin: String) -> Self {
        Pin(pin.into())
    }
}

impl From<&str> for Pin {
    fn from(pin: &str) -> Self {
        Pin(pin.into())
    }
}

impl From<SecretString> for Pin {
    fn from(pin: SecretString) -> Self {
        Pin(pin)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"[REDACTED]\"")
    }
}

/// Messages are compared in tests only; whoever guards a token with a comparison uses constant time.
impl PartialEq for Pin {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Serialize for Pin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Pin::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_never_printed() {
        let pin = Pin::from("1234-very-secret");
        assert_eq!(format!("{pin:?}"), "\"[REDACTED]\"");
        assert_eq!(pin.expose(), "1234-very-secret");
    }
}
