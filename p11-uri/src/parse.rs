//! Text to [`Uri`]: uriparse judges path and query by RFC 3986, then they are split by the grammar of
//! RFC 7512 section 2.3.

use crate::error::{Error, ErrorKind, MAX_LEN};
use crate::uri::{ObjectAttributes, QueryAttributes, SCHEME, TokenAttributes, Uri};
use percent_encoding::percent_decode_str;
use secrecy::zeroize::Zeroizing;
use std::str::FromStr;
use uriparse::{Path, Query};

impl Uri {
    /// Parses a PKCS#11 URI.
    ///
    /// Stricter than the grammar in one point: an attribute of RFC 7512 on the wrong side of the `?` is
    /// refused, since it would otherwise be taken for a vendor attribute, and a PIN would be shown.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but [`ErrorKind::PinSource`] and [`ErrorKind::NotInRequest`].
    pub fn parse(text: &str) -> Result<Uri, Error> {
        if text.len() > MAX_LEN {
            return Err(ErrorKind::TooLong(text.len()).into());
        }
        let rest = match text.split_at_checked(SCHEME.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
            _ => return Err(ErrorKind::Scheme.at(0)),
        };
        if rest.starts_with("//") {
            return Err(ErrorKind::Authority.at(SCHEME.len()));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = Span {
            text: path,
            start: SCHEME.len(),
        };
        let query = Span {
            text: query,
            start: path.start + path.text.len() + 1,
        };
        // Path and query apart, since parsing a scheme makes uriparse build a table of all there are.
        path.validate("[]", |text| Path::try_from(text).is_ok())?;
        query.validate("[]|", |text| Query::try_from(text).is_ok())?;

        let mut uri = Uri::default();
        path.read_attributes(';', '/', |name, value| uri.set_path(name, value))?;
        query.read_attributes('&', ';', |name, value| uri.set_query(name, value))?;
        // Values of the same name keep their order.
        uri.vendor_query.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(uri)
    }

    fn set_path(&mut self, name: &str, value: &[u8]) -> Result<(), ErrorKind> {
        if self.token.set(name, value)? || self.object.set(name, value)? {
            return Ok(());
        }
        if QueryAttributes::has(name) {
            return Err(ErrorKind::Misplaced(name.to_owned()));
        }
        match self.vendor_path.insert(name.to_owned(), value.to_owned()) {
            Some(_) => Err(ErrorKind::Duplicate(name.to_owned())),
            None => Ok(()),
        }
    }

    fn set_query(&mut self, name: &str, value: &[u8]) -> Result<(), ErrorKind> {
        if TokenAttributes::has(name) || ObjectAttributes::has(name) {
            return Err(ErrorKind::Misplaced(name.to_owned()));
        }
        if !self.query.set(name, value)? {
            self.vendor_query.push((name.to_owned(), value.to_owned()));
        }
        if self.query.pin_source.is_some() && self.query.pin_value.is_some() {
            return Err(ErrorKind::TwoPins);
        }
        Ok(())
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

/// A part of the text, and at which byte of the text it starts.
#[derive(Clone, Copy)]
struct Span<'a> {
    text: &'a str,
    start: usize,
}

impl Span<'_> {
    /// Lets uriparse judge by RFC 3986, in a copy where letters stand for the characters `also`, which
    /// RFC 7512 allows beside. The copy never grows and is wiped, since a PIN may be in it.
    fn validate(self, also: &str, is_valid: fn(&str) -> bool) -> Result<(), Error> {
        let mut masked = Zeroizing::new(String::with_capacity(self.text.len()));
        masked.extend(self.text.chars().map(|char| match also.contains(char) {
            true => 'x',
            false => char,
        }));
        if is_valid(&masked) {
            return Ok(());
        }
        // uriparse names no place, so it is asked about each character.
        let wrong = masked.char_indices().find(|&(at, char)| {
            let len = if char == '%' { 3 } else { char.len_utf8() };
            !masked.get(at..at + len).is_some_and(is_valid)
        });
        let (at, kind) = match wrong {
            Some((at, '#')) => (at, ErrorKind::Fragment),
            Some((at, '%')) => (at, ErrorKind::PercentEncoding),
            Some((at, _)) => (at, ErrorKind::Character),
            None => (0, ErrorKind::Character),
        };
        Err(kind.at(self.start + at))
    }

    /// Hands over the name and the percent-decoded value of each attribute. `reserved` is the character
    /// that RFC 3986 allows in this part and RFC 7512 does not allow in a value.
    fn read_attributes(
        self,
        separator: char,
        reserved: char,
        mut set: impl FnMut(&str, &[u8]) -> Result<(), ErrorKind>,
    ) -> Result<(), Error> {
        if self.text.is_empty() {
            return Ok(());
        }
        let mut start = self.start;
        for attribute in self.text.split(separator) {
            let (name, value) = attribute
                .split_once('=')
                .ok_or(ErrorKind::NoEquals.at(start))?;
            let is_name_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_name_char) {
                return Err(ErrorKind::Name.at(start));
            }
            let value_start = start + name.len() + 1;
            if let Some(at) = value.find(reserved) {
                return Err(ErrorKind::Character.at(value_start + at));
            }
            // `token=a&pin-value=1234`, where a `?` is meant: legal, but a PIN that nobody would recognise.
            let misplaced =
                ["&pin-value=", ";pin-value=", "?pin-value="].map(|pin| value.find(pin));
            if let Some(at) = misplaced.into_iter().flatten().min() {
                return Err(ErrorKind::Misplaced("pin-value".to_owned()).at(value_start + at + 1));
            }
            // May be a PIN. Never longer than the text, so that no part is left behind by a reallocation.
            let mut decoded = Zeroizing::new(Vec::with_capacity(value.len()));
            decoded.extend(percent_decode_str(value));
            set(name, &decoded).map_err(|kind| kind.at(start))?;
            start += attribute.len() + separator.len_utf8();
        }
        Ok(())
    }
}
