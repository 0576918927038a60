//! Text goes in, a [`Uri`] or what is wrong with the text comes out.
//!
//! Two layers: uriparse judges path and query as RFC 3986 does, then they are taken apart by the grammar of
//! RFC 7512 section 2.3; `attribute` makes values of the parts.

use crate::attribute::{Attribute, Piece, hex_pair};
use crate::{Error, Uri};
use secrecy::zeroize::Zeroizing;
use std::str::FromStr;
use uriparse::{Path, Query};

/// Longest text that is parsed, in bytes.
pub const MAX_LEN: usize = 16 * 1024;

const SCHEME: &str = "pkcs11:";

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

/// The RFC 3986 layer: path and query of what is a URI of our scheme without authority and fragment.
fn split(text: &str) -> Result<(Piece<'_>, Piece<'_>), Error> {
    let rest = text
        .split_at_checked(SCHEME.len())
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
        .map(|(_, rest)| rest)
        .ok_or(Error::Scheme)?;
    if rest.starts_with("//") {
        return Err(Error::Authority {
            position: SCHEME.len(),
        });
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // Path and query apart, since parsing a scheme makes uriparse build a table of all there are.
    let is_path = Path::try_from(masked(path).as_str()).is_ok();
    if !is_path || Query::try_from(masked(query).as_str()).is_err() {
        return Err(explain(text));
    }
    let path = Piece {
        text: path,
        at: SCHEME.len(),
    };
    let query = Piece {
        text: query,
        at: path.at + path.text.len() + 1,
    };
    Ok((path, query))
}

/// RFC 7512 allows three characters that RFC 3986 does not; a letter stands in for them here. The copy
/// never grows and is wiped, since a PIN may be in it.
fn masked(part: &str) -> Zeroizing<String> {
    let mut masked = Zeroizing::new(String::with_capacity(part.len()));
    masked.extend(
        part.chars()
            .map(|char| if "[]|".contains(char) { 'x' } else { char }),
    );
    masked
}

/// Finds the place and the reason for which path or query were refused; uriparse names no place.
fn explain(text: &str) -> Error {
    let wrong = |&(at, byte): &(usize, u8)| match byte {
        b'%' => hex_pair(text, at + 1).is_none(),
        b';' => false,
        _ => !is_pchar(byte) && !is_qchar(byte),
    };
    let position = SCHEME.len();
    match text.bytes().enumerate().find(wrong) {
        Some((position, b'#')) => Error::Fragment { position },
        Some((position, b'%')) => Error::PercentEncoding { position },
        Some((position, _)) => Error::Character { position },
        None => Error::Character { position },
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
