//! MessagePack enters, its values leave, as far as protocol 1 has words for them: structs are maps of
//! named fields, texts are `str`, bytes are `bin`, variants are names, numbers are not negative.
//!
//! rmp-serde's reader takes more (structs as arrays, fields by number, texts from bytes), which would
//! become a part of the protocol; and it is compiled anew, with all it can read, for every type.

mod model;

use std::fmt::{self, Display};
use std::str;

use rmp::Marker;

/// How deep maps and arrays may nest.
const MAX_DEPTH: usize = 16;

/// Reads one value after the other from a body.
pub(crate) struct Reader<'de> {
    rest: &'de [u8],
    depth: usize,
}

/// Why a body cannot be read. Quotes no value: it may be a PIN.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// The body ends inside a value.
    Short,
    /// Maps and arrays nest deeper than [`MAX_DEPTH`].
    Deep,
    /// A text is not UTF-8.
    Text,
    /// Something else stands there than must.
    Value,
}

impl<'de> Reader<'de> {
    pub(crate) fn new(body: &'de [u8]) -> Self {
        Reader {
            rest: body,
            depth: 0,
        }
    }

    /// Whether all was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many entries the map has that begins here.
    pub(crate) fn map(&mut self) -> Result<u32, DecodeError> {
        match self.marker()? {
            Marker::FixMap(length) => Ok(length.into()),
            Marker::Map16 => self.length(2),
            Marker::Map32 => self.length(4),
            _ => Err(DecodeError::Value),
        }
    }

    /// The text that stands here.
    pub(crate) fn text(&mut self) -> Result<&'de str, DecodeError> {
        let length = match self.marker()? {
            Marker::FixStr(length) => length.into(),
            Marker::Str8 => self.length(1)?,
            Marker::Str16 => self.length(2)?,
            Marker::Str32 => self.length(4)?,
            _ => return Err(DecodeError::Value),
        };
        str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Text)
    }

    /// Passes over a value of any kind.
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        let bytes = match self.marker()? {
            Marker::Null | Marker::True | Marker::False => 0,
            Marker::FixPos(_) | Marker::FixNeg(_) => 0,
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 => 2,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixStr(length) => length.into(),
            Marker::Str8 | Marker::Bin8 => self.length(1)?,
            Marker::Str16 | Marker::Bin16 => self.length(2)?,
            Marker::Str32 | Marker::Bin32 => self.length(4)?,
            // The number of an extension comes before its bytes.
            Marker::FixExt1 => 1 + 1,
            Marker::FixExt2 => 1 + 2,
            Marker::FixExt4 => 1 + 4,
            Marker::FixExt8 => 1 + 8,
            Marker::FixExt16 => 1 + 16,
            Marker::Ext8 => self.length(1)? + 1,
            Marker::Ext16 => self.length(2)? + 1,
            Marker::Ext32 => self.length(4)?.saturating_add(1),
            Marker::FixArray(count) => return self.skip_all(count.into(), 1),
            Marker::Array16 => return self.length(2).and_then(|count| self.skip_all(count, 1)),
            Marker::Array32 => return self.length(4).and_then(|count| self.skip_all(count, 1)),
            Marker::FixMap(count) => return self.skip_all(count.into(), 2),
            Marker::Map16 => return self.length(2).and_then(|count| self.skip_all(count, 2)),
            Marker::Map32 => return self.length(4).and_then(|count| self.skip_all(count, 2)),
            Marker::Reserved => return Err(DecodeError::Value),
        };
        self.take(bytes).map(drop)
    }

    /// Passes over so many entries of so many values each.
    fn skip_all(&mut self, entries: u32, values: u32) -> Result<(), DecodeError> {
        self.nested(|reader| {
            (0..u64::from(entries) * u64::from(values)).try_for_each(|_| reader.skip())
        })
    }

    /// How many elements the array has that begins here.
    fn array(&mut self) -> Result<u32, DecodeError> {
        match self.marker()? {
            Marker::FixArray(length) => Ok(length.into()),
            Marker::Array16 => self.length(2),
            Marker::Array32 => self.length(4),
            _ => Err(DecodeError::Value),
        }
    }

    fn bytes(&mut self) -> Result<&'de [u8], DecodeError> {
        let length = match self.marker()? {
            Marker::Bin8 => self.length(1)?,
            Marker::Bin16 => self.length(2)?,
            Marker::Bin32 => self.length(4)?,
            _ => return Err(DecodeError::Value),
        };
        self.take(length)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        match self.marker()? {
            Marker::FixPos(number) => Ok(number.into()),
            Marker::U8 => self.big_endian(1),
            Marker::U16 => self.big_endian(2),
            Marker::U32 => self.big_endian(4),
            Marker::U64 => self.big_endian(8),
            _ => Err(DecodeError::Value),
        }
    }

    fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.marker()? {
            Marker::True => Ok(true),
            Marker::False => Ok(false),
            _ => Err(DecodeError::Value),
        }
    }

    /// Passes over a nil, if one stands here.
    fn nil(&mut self) -> bool {
        let rest = self.rest.strip_prefix(&[Marker::Null.to_u8()]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn marker(&mut self) -> Result<Marker, DecodeError> {
        self.big_endian(1)
            .map(|byte| Marker::from_u8(byte.to_le_bytes()[0]))
    }

    fn length(&mut self, bytes: u32) -> Result<u32, DecodeError> {
        self.big_endian(bytes).map(|length| length as u32)
    }

    fn big_endian(&mut self, bytes: u32) -> Result<u64, DecodeError> {
        let bytes = self.take(bytes)?.iter();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn take(&mut self, bytes: u32) -> Result<&'de [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes as usize)
            .ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        if self.depth == MAX_DEPTH {
            return Err(DecodeError::Deep);
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }
}

impl Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explain())
    }
}

impl DecodeError {
    /// For people.
    pub(crate) fn explain(&self) -> &'static str {
        match self {
            DecodeError::Short => "it ends too early",
            DecodeError::Deep => "it is nested too deeply",
            DecodeError::Text => "a text is not UTF-8",
            DecodeError::Value => "a field is missing or has a value of the wrong type",
        }
    }
}

impl std::error::Error for DecodeError {}
