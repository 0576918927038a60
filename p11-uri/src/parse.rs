//! Text goes in, a [`Uri`] or the first thing that is wrong with the text comes out.
//!
//! Two layers: uriparse judges the text as RFC 3986 does, then the attributes are read by the grammar of
//! RFC 7512 section 2.3.

use crate::uri::{Path, Query};
use crate::{Error, ObjectType, Uri};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use std::str::FromStr;
use uriparse::{Scheme, URIReference};

/// Longest text that is parsed, in bytes.
pub const MAX_LEN: usize = 16 * 1024;

const SCHEME: &str = "pkcs11:";
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

impl Uri {
    /// Parses a PKCS#11 URI.
    ///
    /// Stricter than the grammar in one point: an attribute of RFC 7512 on the wrong side of the `?` is
    /// refused, since it would otherwise be taken for a vendor attribute, and a PIN would be shown.
    pub fn parse(text: &str) -> Result<Uri, Error> {
        if text.len() > MAX_LEN {
            return Err(Error::TooLong { length: text.len() });
        }
        let (path, query) = split(text)?;
        let mut uri = Uri::default();
        path.attributes(';', is_pchar)
            .try_for_each(|attribute| uri.path.read(&attribute?))?;
        query
            .attributes('&', is_qchar)
            .try_for_each(|attribute| uri.query.read(&attribute?))?;
        Ok(uri)
    }
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Uri::parse(text)
    }
}

impl TryFrom<&str> for Uri {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        Uri::parse(text)
    }
}

/// A piece of the text and where it starts.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    at: usize,
}

struct Attribute<'a> {
    name: &'a str,
    at: usize,
    value: Piece<'a>,
}

/// The RFC 3986 layer: path and query of what is a URI of our scheme without authority and fragment.
fn split(text: &str) -> Result<(Piece<'_>, Piece<'_>), Error> {
    // RFC 7512 allows three characters that RFC 3986 does not; a letter stands in for them here.
    let masked = Zeroizing::new(text.replace(['[', ']', '|'], "x"));
    match URIReference::try_from(masked.as_str()) {
        Ok(uri)
            if uri.scheme() == Some(&Scheme::PKCS11)
                && !uri.has_authority()
                && !uri.has_fragment() => {}
        _ => return Err(explain(text)),
    }
    let rest = text.get(SCHEME.len()..).unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = Piece {
        text: path,
        at: SCHEME.len(),
    };
    Ok((
        path,
        Piece {
            text: query,
            at: path.at + path.text.len() + 1,
        },
    ))
}

/// Finds the place and the reason for which [`split`] refused a text; uriparse names no place.
fn explain(text: &str) -> Error {
    let scheme = text
        .get(..SCHEME.len())
        .filter(|start| start.eq_ignore_ascii_case(SCHEME));
    let Some(rest) = scheme.and_then(|scheme| text.get(scheme.len()..)) else {
        return Error::Scheme;
    };
    if rest.starts_with("//") {
        return Error::Authority {
            position: SCHEME.len(),
        };
    }
    let wrong = |&(at, byte): &(usize, u8)| match byte {
        b'%' => hex_pair(text, at + 1).is_none(),
        b';' | b'&' => false,
        _ => !is_pchar(byte) && !is_qchar(byte),
    };
    match text.bytes().enumerate().find(wrong) {
        Some((position, b'#')) => Error::Fragment { position },
        Some((position, b'%')) => Error::PercentEncoding { position },
        Some((position, _)) => Error::Character { position },
        None => Error::Scheme,
    }
}

impl<'a> Piece<'a> {
    fn attributes(
        self,
        separator: char,
        allowed: fn(u8) -> bool,
    ) -> impl Iterator<Item = Result<Attribute<'a>, Error>> {
        let mut next = self.at;
        let list = (!self.text.is_empty()).then(|| self.text.split(separator));
        list.into_iter().flatten().map(move |text| {
            let at = next;
            next += text.len() + separator.len_utf8();
            Piece { text, at }.attribute(allowed)
        })
    }

    fn attribute(self, allowed: fn(u8) -> bool) -> Result<Attribute<'a>, Error> {
        let at = self.at;
        let (name, value) = self
            .text
            .split_once('=')
            .ok_or(Error::NoEquals { position: at })?;
        let is_name_char = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(is_name_char) {
            return Err(Error::Name { position: at });
        }
        let value = Piece {
            text: value,
            at: at + name.len() + 1,
        };
        if let Some(offset) = value.text.bytes().position(|byte| !allowed(byte)) {
            return Err(Error::Character {
                position: value.at + offset,
            });
        }
        // `token=a&pin-value=1234`, where a `?` is meant: legal, but a PIN that nobody would recognise.
        if let Some(offset) = value.text.find("pin-value=") {
            return Err(Error::Misplaced {
                attribute: "pin-value".to_owned(),
                position: value.at + offset,
            });
        }
        Ok(Attribute { name, at, value })
    }

    /// Percent-decoded; wiped when dropped, since it may be a PIN.
    fn decoded(self) -> Result<Zeroizing<Vec<u8>>, Error> {
        // Never longer than the text, so that no part is left behind by a reallocation.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.text.len()));
        let mut rest = self.text.bytes().enumerate();
        while let Some((offset, byte)) = rest.next() {
            if byte != b'%' {
                bytes.push(byte);
                continue;
            }
            let decoded = hex_pair(self.text, offset + 1);
            bytes.push(decoded.ok_or(Error::PercentEncoding {
                position: self.at + offset,
            })?);
            rest.nth(1);
        }
        Ok(bytes)
    }
}

impl Path {
    fn read(&mut self, attribute: &Attribute<'_>) -> Result<(), Error> {
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
            "id" => put(&mut self.id, attribute, Attribute::bytes),
            "object" => put(&mut self.object, attribute, Attribute::text),
            "type" => put(&mut self.object_type, attribute, Attribute::object_type),
            name if QUERY_NAMES.contains(&name) => Err(attribute.misplaced()),
            name => match self.vendor.insert(name.to_owned(), attribute.bytes()?) {
                Some(_) => Err(attribute.duplicate()),
                None => Ok(()),
            },
        }
    }
}

impl Query {
    fn read(&mut self, attribute: &Attribute<'_>) -> Result<(), Error> {
        match attribute.name {
            "pin-source" => put(&mut self.pin_source, attribute, Attribute::text)?,
            "pin-value" => put(&mut self.pin_value, attribute, Attribute::pin)?,
            "module-name" => put(&mut self.module_name, attribute, Attribute::text)?,
            "module-path" => put(&mut self.module_path, attribute, Attribute::text)?,
            name if PATH_NAMES.contains(&name) => return Err(attribute.misplaced()),
            name => self.vendor.push((name.to_owned(), attribute.bytes()?)),
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
    fn bytes(&self) -> Result<Vec<u8>, Error> {
        Ok(self.value.decoded()?.to_vec())
    }

    fn text(&self) -> Result<String, Error> {
        let bytes = self.value.decoded()?;
        Ok(self.utf8(&bytes)?.to_owned())
    }

    fn pin(&self) -> Result<SecretString, Error> {
        let bytes = self.value.decoded()?;
        Ok(SecretString::from(self.utf8(&bytes)?))
    }

    fn object_type(&self) -> Result<ObjectType, Error> {
        let bytes = self.value.decoded()?;
        let named = |known: &ObjectType| known.as_str().as_bytes() == bytes.as_slice();
        ObjectType::ALL
            .into_iter()
            .find(named)
            .ok_or(Error::Type { position: self.at })
    }

    fn slot_id(&self) -> Result<u64, Error> {
        let bytes = self.value.decoded()?;
        number(&bytes).ok_or(Error::SlotId { position: self.at })
    }

    /// `major` alone means minor 0 (RFC 7512 section 2.3).
    fn version(&self) -> Result<(u8, u8), Error> {
        let bytes = self.value.decoded()?;
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

fn hex_pair(text: &str, at: usize) -> Option<u8> {
    let pair = text.get(at..at + 2)?;
    pair.bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u8::from_str_radix(pair, 16).ok())?
}

/// `pk11-pchar` of RFC 7512 section 2.3.
fn is_pchar(byte: u8) -> bool {
    is_res_avail(byte) || byte == b'&'
}

/// `pk11-qchar` of RFC 7512 section 2.3.
fn is_qchar(byte: u8) -> bool {
    is_res_avail(byte) || b"/?|".contains(&byte)
}

/// `unreserved`, `pk11-res-avail` and the sign of `pct-encoded`.
fn is_res_avail(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,=%".contains(&byte)
}
