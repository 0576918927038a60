//! Reading a message of protocol 1: first the structure of its MessagePack, then its fields.
//!
//! The structure is checked here since rmp-serde ignores bytes that follow and lets values nest a
//! thousand levels deep.

use rmp::Marker;
use rmp::decode::{read_map_len, read_str_from_slice};
use rmp_serde::decode::Error as SerdeError;
use serde_path_to_error::Segment;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::message::Message;

/// How deep maps and arrays may nest. The message is the first of them, its fields the second.
const MAX_DEPTH: usize = 16;

const SHORT: Error = Error::Malformed("it ends too early");

/// The message in the body of a frame.
///
/// # Errors
/// [`Error::Malformed`] for bytes that are no message, [`Error::UnknownMessage`] for a message of
/// another name, [`Error::Field`] for a known message with a wrong field.
pub fn decode<M: Message>(body: &[u8]) -> Result<M, Error> {
    let name = name(body)?;
    let Some(message) = M::NAMES.iter().find(|known| **known == name) else {
        return Err(Error::UnknownMessage(name.into()));
    };
    let mut fields = rmp_serde::Deserializer::from_read_ref(body);
    serde_path_to_error::deserialize(&mut fields).map_err(|error| wrong_field(message, error))
}

/// Names the field, and quotes nothing that may be a PIN: no text of serde's, no value, and no key or
/// variant that is not a name of ours.
fn wrong_field(message: &'static str, error: serde_path_to_error::Error<SerdeError>) -> Error {
    let mut path = message.to_owned();
    for segment in error.path() {
        match segment {
            Segment::Map { key } if key.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()) => {
                path = path + "." + key;
            }
            Segment::Seq { index } => path = format!("{path}[{index}]"),
            _ => {}
        }
    }
    let mut problem = "has a value of the wrong type or size";
    if let SerdeError::Syntax(text) = error.into_inner() {
        let text = Zeroizing::new(text);
        let parts: Vec<_> = text.split('`').collect();
        if let ["missing field ", field, ""] = parts[..] {
            (path, problem) = (path + "." + field, "is missing");
        } else if let ["duplicate field ", field, ""] = parts[..] {
            (path, problem) = (path + "." + field, "is there twice");
        }
    }
    Error::Field {
        message,
        path,
        problem,
    }
}

/// The name of the message, once all of the body has the structure of one message.
fn name(body: &[u8]) -> Result<&str, Error> {
    let mut rest = body;
    skip(&mut rest, MAX_DEPTH)?;
    if !rest.is_empty() {
        return Err(Error::Malformed("bytes follow it"));
    }
    let mut rest = body;
    let entries = read_map_len(&mut rest);
    match (entries, read_str_from_slice(rest)) {
        (Ok(1), Ok((name, _))) => Ok(name),
        _ => Err(Error::Malformed("it is not a map from one name to fields")),
    }
}

/// The name of the message whose body begins so, as far as it is one.
pub(crate) fn start_of_name(mut head: &[u8]) -> Option<&str> {
    let entries = read_map_len(&mut head).ok()?;
    let (name, _) = read_str_from_slice(head).ok()?;
    (entries == 1).then_some(name)
}

/// Skips a value, in which maps and arrays may nest so deep.
fn skip(rest: &mut &[u8], depth: usize) -> Result<(), Error> {
    let marker = take(rest, 1)?.first().copied().ok_or(SHORT)?;
    let length = match Marker::from_u8(marker) {
        Marker::Null | Marker::False | Marker::True => 0,
        Marker::FixPos(_) | Marker::FixNeg(_) => 0,
        Marker::U8 | Marker::I8 => 1,
        Marker::U16 | Marker::I16 => 2,
        Marker::U32 | Marker::I32 | Marker::F32 => 4,
        Marker::U64 | Marker::I64 | Marker::F64 => 8,
        Marker::FixStr(length) => length.into(),
        Marker::Str8 | Marker::Bin8 => read_length(rest, 1)?,
        Marker::Str16 | Marker::Bin16 => read_length(rest, 2)?,
        Marker::Str32 | Marker::Bin32 => read_length(rest, 4)?,
        // An extension has one byte more, its type.
        Marker::FixExt1 => 1 + 1,
        Marker::FixExt2 => 1 + 2,
        Marker::FixExt4 => 1 + 4,
        Marker::FixExt8 => 1 + 8,
        Marker::FixExt16 => 1 + 16,
        Marker::Ext8 => 1 + read_length(rest, 1)?,
        Marker::Ext16 => 1 + read_length(rest, 2)?,
        Marker::Ext32 => read_length(rest, 4)?.saturating_add(1),
        Marker::FixArray(count) => return skip_all(rest, depth, count.into()),
        Marker::Array16 => return read_length(rest, 2).and_then(|n| skip_all(rest, depth, n)),
        Marker::Array32 => return read_length(rest, 4).and_then(|n| skip_all(rest, depth, n)),
        Marker::FixMap(count) => return skip_all(rest, depth, 2 * usize::from(count)),
        Marker::Map16 => return read_length(rest, 2).and_then(|n| skip_all(rest, depth, 2 * n)),
        Marker::Map32 => {
            let count = read_length(rest, 4)?.saturating_mul(2);
            return skip_all(rest, depth, count);
        }
        Marker::Reserved => return Err(Error::Malformed("a value has no type")),
    };
    take(rest, length).map(drop)
}

fn skip_all(rest: &mut &[u8], depth: usize, count: usize) -> Result<(), Error> {
    let depth = depth
        .checked_sub(1)
        .ok_or(Error::Malformed("it is nested too deeply"))?;
    (0..count).try_for_each(|_| skip(rest, depth))
}

/// A length of so many bytes, big-endian.
fn read_length(rest: &mut &[u8], bytes: usize) -> Result<usize, Error> {
    let bytes = take(rest, bytes)?.iter();
    Ok(bytes.fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Error> {
    rest.split_off(..length).ok_or(SHORT)
}
