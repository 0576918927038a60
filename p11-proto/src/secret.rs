//! PINs, and URIs that may hold one: wiped when they are dropped, and never printed.

use std::fmt;
use std::ops::Deref;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// The PIN of a token's user or security officer.
///
/// Its memory is wiped when it is dropped. `Debug` and `Display` print a placeholder.
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
        Pin(Zeroizing::new(pin).as_str().into())
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

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
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
        // serde quotes what is no text.
        let pin = String::deserialize(deserializer);
        let no_text = |_| serde::de::Error::custom("a PIN must be text, in quotes");
        pin.map(Pin::from).map_err(no_text)
    }
}

/// A PKCS#11 URI as a client wrote it, which may carry a PIN as `pin-value`.
///
/// `Debug` prints what stands before the query, or nothing where that could hold a PIN too; there is no `Display`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UriText(String);

impl Deref for UriText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for UriText {
    fn from(uri: String) -> Self {
        UriText(uri)
    }
}

impl From<&str> for UriText {
    fn from(uri: &str) -> Self {
        UriText(uri.into())
    }
}

impl Drop for UriText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for UriText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = match self.0.split_once('?') {
            Some((path, _)) => (path, "?[REDACTED]"),
            None => (self.0.as_str(), ""),
        };
        // Whatever is encoded but digits, as an id has them, may spell anything.
        let encodes = |code: &str| !code.starts_with(['0', '1']);
        let mut codes = path.split('%').skip(1);
        if codes.any(encodes) || path.to_ascii_lowercase().contains("pin") {
            return f.write_str("\"[REDACTED]\"");
        }
        write!(f, "\"{}{query}\"", path.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_never_printed() {
        let pin = Pin::from("1234-very-secret");
        assert_eq!(format!("{pin:?} {pin}"), "\"[REDACTED]\" [REDACTED]");
        assert_eq!(pin.expose(), "1234-very-secret");
        let uri = UriText::from("pkcs11:token=t?pin-value=1234-very-secret");
        assert_eq!(format!("{uri:?}"), "\"pkcs11:token=t?[REDACTED]\"");
        let uri = UriText::from("pkcs11:token=t;id=%01");
        assert_eq!(format!("{uri:?}"), "\"pkcs11:token=t;id=%01\"");
        for uri in [
            "pkcs11:token=t;pin-value=1234-very-secret",
            "pkcs11:token=t%3Fp%69n-value=1234-very-secret",
            "pkcs11:token=t&PIN=1234-very-secret",
        ] {
            let shown = format!("{:?}", UriText::from(uri));
            assert_eq!(shown, "\"[REDACTED]\"");
        }
    }
}
