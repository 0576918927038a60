//! One attribute as it is written goes in, its typed value in [`Path`] or [`Query`] comes out.

use crate::uri::{Path, Query};
use crate::{Error, ObjectType};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use std::str::FromStr;

const PATH_NAMES: [&str; 13] = [
    "library-description",
    "library-manufacturer",
    "library-version",
    "slot-description",
    "slot-manufacturer",
    "slot-id",
    "model",
    "manufacturer",
    "serial",
    "token",
    "id",
    "object",
    "type",
];
const QUERY_NAMES: [&str; 4] = ["pin-source", "pin-value", "module-name", "module-path"];

/// An attribute whose name and characters follow the grammar.
pub(crate) struct Attribute<'a> {
    pub name: &'a str,
    pub at: usize,
    pub value: Piece<'a>,
}

/// A piece of the text and where it starts.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub text: &'a str,
    pub at: usize,
}

impl Path {
    pub(crate) fn read(&mut self, attribute: &Attribute<'_>) -> Result<(), Error> {
        match attribute.name {
            "library-description" => put(&mut self.library_description, attribute, Attribute::text),
            "library-manufacturer" => {
                put(&mut self.library_manufacturer, attribute, Attribute::text)
            }
            "library-version" => put(&mut self.library_version, attribute, Attribute::version),
            "slot-description" => put(&mut self.slot_description, attribute, Attribute::text),
            "slot-manufacturer" => put(&mut self.slot_manufacturer, attribute, Attribute::text),
            "slot-id" => put(&mut self.slot_id, attribute, Attribute::slot_id),
            "model" => put(&mut self.model, attribute, Attribute::text),
            "manufacturer" => put(&mut self.manufacturer, attribute, Attribute::text),
            "serial" => put(&mut self.serial, attribute, Attribute::text),
            "token" => put(&mut self.token, attribute, Attribute::text),
            "id" => put(&mut self.id, attribute, |id| Ok(id.bytes())),
            "object" => put(&mut self.object, attribute, Attribute::text),
            "type" => put(&mut self.object_type, attribute, Attribute::object_type),
            name if QUERY_NAMES.contains(&name) => Err(attribute.misplaced()),
            name => match self.vendor.insert(name.to_owned(), attribute.bytes()) {
                Some(_) => Err(attribute.duplicate()),
                None => Ok(()),
            },
        }
    }
}

impl Query {
    pub(crate) fn read(&mut self, attribute: &Attribute<'_>) -> Result<(), Error> {
        match attribute.name {
            "pin-source" => put(&mut self.pin_source, attribute, Attribute::text)?,
            "pin-value" => put(&mut self.pin_value, attribute, Attribute::pin)?,
            "module-name" => put(&mut self.module_name, attribute, Attribute::text)?,
            "module-path" => put(&mut self.module_path, attribute, Attribute::text)?,
            name if PATH_NAMES.contains(&name) => return Err(attribute.misplaced()),
            name => self.vendor.push((name.to_owned(), attribute.bytes())),
        }
        if self.pin_source.is_some() && self.pin_value.is_some() {
            return Err(Error::TwoPins {
                position: attribute.at,
            });
        }
        Ok(())
    }
}

fn put<'a, T>(
    place: &mut Option<T>,
    attribute: &Attribute<'a>,
    read: fn(&Attribute<'a>) -> Result<T, Error>,
) -> Result<(), Error> {
    if place.is_some() {
        return Err(attribute.duplicate());
    }
    *place = Some(read(attribute)?);
    Ok(())
}

impl Attribute<'_> {
    fn bytes(&self) -> Vec<u8> {
        self.value.decoded().to_vec()
    }

    fn text(&self) -> Result<String, Error> {
        let bytes = self.value.decoded();
        Ok(self.utf8(&bytes)?.to_owned())
    }

    fn pin(&self) -> Result<SecretString, Error> {
        let bytes = self.value.decoded();
        Ok(SecretString::from(self.utf8(&bytes)?))
    }

    fn object_type(&self) -> Result<ObjectType, Error> {
        let bytes = self.value.decoded();
        let named = |known: &ObjectType| known.as_str().as_bytes() == bytes.as_slice();
        ObjectType::ALL
            .into_iter()
            .find(named)
            .ok_or(Error::Type { position: self.at })
    }

    fn slot_id(&self) -> Result<u64, Error> {
        let bytes = self.value.decoded();
        number(&bytes).ok_or(Error::SlotId { position: self.at })
    }

    /// `major` alone means minor 0 (RFC 7512 section 2.3).
    fn version(&self) -> Result<(u8, u8), Error> {
        let bytes = self.value.decoded();
        let mut parts = bytes.split(|byte| *byte == b'.').map(number);
        match (parts.next().flatten(), parts.next(), parts.next()) {
            (Some(major), None, None) => Ok((major, 0)),
            (Some(major), Some(Some(minor)), None) => Ok((major, minor)),
            _ => Err(Error::LibraryVersion { position: self.at }),
        }
    }

    fn utf8<'b>(&self, bytes: &'b [u8]) -> Result<&'b str, Error> {
        let refused = |_| Error::NotUtf8 {
            attribute: self.name.to_owned(),
            position: self.at,
        };
        std::str::from_utf8(bytes).map_err(refused)
    }

    fn duplicate(&self) -> Error {
        Error::Duplicate {
            attribute: self.name.to_owned(),
            position: self.at,
        }
    }

    fn misplaced(&self) -> Error {
        Error::Misplaced {
            attribute: self.name.to_owned(),
            position: self.at,
        }
    }
}

/// Digits only: `FromStr` alone would take a sign.
fn number<T: FromStr>(digits: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

impl Piece<'_> {
    /// Percent-decoded; wiped when dropped, since it may be a PIN.
    fn decoded(self) -> Zeroizing<Vec<u8>> {
        // Never longer than the text, so that no part is left behind by a reallocation.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.text.len()));
        let mut rest = self.text.bytes().enumerate();
        while let Some((offset, byte)) = rest.next() {
            // The RFC 3986 layer lets no `%` pass without its two digits.
            if byte == b'%'
                && let Some(decoded) = hex_pair(self.text, offset + 1)
            {
                bytes.push(decoded);
                rest.nth(1);
            } else {
                bytes.push(byte);
            }
        }
        bytes
    }
}

/// The byte that two hexadecimal digits at this place stand for.
pub(crate) fn hex_pair(text: &str, at: usize) -> Option<u8> {
    let pair = text.get(at..at + 2)?;
    pair.bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u8::from_str_radix(pair, 16).ok())?
}
