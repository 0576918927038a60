//! Types of attribute values: how each is read from the percent-decoded bytes, printed and matched.

use crate::error::ErrorKind;
use crate::info::ObjectType;
use secrecy::{ExposeSecret, SecretString};
use std::borrow::Cow;
use std::ops::Deref;
use std::str::{self, FromStr};

/// A type of attribute values.
pub(crate) trait Value: PartialEq + Sized {
    /// Reads the value of the attribute `name`.
    fn parse(name: &str, bytes: &[u8]) -> Result<Self, ErrorKind>;

    /// As it is printed, before percent-encoding.
    fn bytes(&self) -> Cow<'_, [u8]>;

    /// Whether a token that says `info` is meant.
    fn matches(&self, info: &Self) -> bool {
        self == info
    }
}

impl Value for String {
    fn parse(name: &str, bytes: &[u8]) -> Result<Self, ErrorKind> {
        text(name, bytes).map(str::to_owned)
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        self.as_bytes().into()
    }

    /// The text fields of the info structures are padded with blanks to their length, by some modules with
    /// NULs against the standard (tpm2-pkcs11), so that neither carries a meaning at the end.
    fn matches(&self, info: &Self) -> bool {
        const PADDING: [char; 2] = [' ', '\0'];
        self.trim_end_matches(PADDING) == info.trim_end_matches(PADDING)
    }
}

impl Value for Vec<u8> {
    fn parse(_: &str, bytes: &[u8]) -> Result<Self, ErrorKind> {
        Ok(bytes.to_vec())
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        self.into()
    }
}

/// A slot id.
impl Value for u64 {
    fn parse(_: &str, bytes: &[u8]) -> Result<Self, ErrorKind> {
        number(bytes).ok_or(ErrorKind::SlotId)
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        self.to_string().into_bytes().into()
    }
}

/// A version, major and minor. `major` alone means minor 0 (RFC 7512 section 2.3).
impl Value for (u8, u8) {
    fn parse(_: &str, bytes: &[u8]) -> Result<Self, ErrorKind> {
        let mut parts = bytes.split(|byte| *byte == b'.').map(number);
        match (parts.next().flatten(), parts.next(), parts.next()) {
            (Some(major), None, None) => Ok((major, 0)),
            (Some(major), Some(Some(minor)), None) => Ok((major, minor)),
            _ => Err(ErrorKind::LibraryVersion),
        }
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        format!("{}.{}", self.0, self.1).into_bytes().into()
    }
}

impl Value for ObjectType {
    fn parse(_: &str, bytes: &[u8]) -> Result<Self, ErrorKind> {
        ObjectType::ALL
            .into_iter()
            .find(|known| known.as_str().as_bytes() == bytes)
            .ok_or(ErrorKind::Type)
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        self.as_str().as_bytes().into()
    }
}

/// A PIN. The comparison is not constant in time.
#[derive(Clone)]
pub(crate) struct Pin(SecretString);

impl Value for Pin {
    fn parse(name: &str, bytes: &[u8]) -> Result<Self, ErrorKind> {
        text(name, bytes).map(|pin| Pin(pin.into()))
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        self.expose_secret().as_bytes().into()
    }
}

impl Deref for Pin {
    type Target = SecretString;

    fn deref(&self) -> &SecretString {
        &self.0
    }
}

impl PartialEq for Pin {
    fn eq(&self, other: &Self) -> bool {
        self.expose_secret() == other.expose_secret()
    }
}

impl Eq for Pin {}

fn text<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, ErrorKind> {
    str::from_utf8(bytes).map_err(|_| ErrorKind::NotUtf8(name.to_owned()))
}

/// Digits only: `FromStr` alone would take a sign.
fn number<T: FromStr>(digits: &[u8]) -> Option<T> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}
