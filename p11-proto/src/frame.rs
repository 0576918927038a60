//! Protocol 1 on the wire: a preamble of four bytes, then frames, each a length and a body.

use std::io::{self, Read, Write};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::body::WipingBuffer;
use crate::decode;
use crate::error::Error;
use crate::message::Message;

pub use crate::body::{Body, MAX_LEN};
pub use crate::decode::decode;

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// The first bytes that a client of protocol 1 sends. A client of tedge1 sends a zero byte instead.
pub const MAGIC: [u8; 3] = *b"P11";

/// [`MAGIC`] and [`VERSION`], which a client sends before its first frame.
pub const PREAMBLE: [u8; 4] = [MAGIC[0], MAGIC[1], MAGIC[2], VERSION];

/// Checks a preamble that was read.
///
/// # Errors
/// [`Error::NotProtocol1`] for other first bytes, [`Error::Version`] for another version.
pub fn check_preamble(preamble: [u8; 4]) -> Result<(), Error> {
    match preamble {
        PREAMBLE => Ok(()),
        [a, b, c, version] if [a, b, c] == MAGIC => Err(Error::Version(version)),
        _ => Err(Error::NotProtocol1),
    }
}

/// Enough of a body to know the name of its message.
const HEAD: usize = 32;

/// Reads the body of one frame; `None` when the peer closed the connection before it began.
///
/// # Errors
/// [`Error::TooLong`] before anything is allocated, [`Error::Truncated`], [`Error::Io`].
pub fn read(reader: &mut impl Read) -> Result<Option<Body>, Error> {
    read_with(reader, |_, _| Ok(()))
}

/// The same, with a check of the length and of the message's name, where it has one, before memory is taken for
/// the body.
///
/// # Errors
/// As [`read`], and those of the check.
pub fn read_with<E: From<Error>>(
    reader: &mut impl Read,
    check: impl FnOnce(usize, Option<&str>) -> Result<(), E>,
) -> Result<Option<Body>, E> {
    let Some(length) = read_length(reader)? else {
        return Ok(None);
    };
    let mut head = Zeroizing::new([0; HEAD]);
    let head = head.get_mut(..length.min(HEAD)).unwrap_or_default();
    read_exact(reader, head)?;
    check(length, decode::start_of_name(head))?;
    let mut body = Zeroizing::new(vec![0; length]);
    let (start, rest) = body.split_at_mut(head.len());
    start.copy_from_slice(head);
    read_exact(reader, rest)?;
    Ok(Some(body))
}

fn read_length(reader: &mut impl Read) -> Result<Option<usize>, Error> {
    let mut length = [0; 4];
    let mut filled = 0;
    while let Some(rest) = length.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(Error::Truncated),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    match length > MAX_LEN {
        true => Err(Error::TooLong(length)),
        false => Ok(Some(length)),
    }
}

fn read_exact(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), Error> {
    reader.read_exact(bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::Truncated,
        _ => Error::Io(e),
    })
}

/// Reads all that a peer sends until it shuts down its writing half: a message of tedge1.
///
/// # Errors
/// [`Error::TooLong`] as soon as there is more than [`MAX_LEN`], [`Error::Io`].
pub fn read_to_end(reader: &mut impl Read) -> Result<Body, Error> {
    read_to_end_with(reader, |_| Ok(()))
}

/// The same, with a check of what is there so far before memory is taken for more.
///
/// # Errors
/// As [`read_to_end`], and those of the check.
pub fn read_to_end_with<E: From<Error>>(
    reader: &mut impl Read,
    mut check: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Body, E> {
    let mut all = WipingBuffer(Body::default());
    let mut chunk = Zeroizing::new([0; 4096]);
    loop {
        match reader.read(&mut *chunk) {
            Ok(0) => return Ok(all.0),
            Ok(count) => {
                let new = chunk.get(..count).unwrap_or_default();
                all.write_all(new).map_err(Error::Io)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::Io(e).into()),
        }
        if all.0.len() > MAX_LEN {
            return Err(Error::TooLong(all.0.len()).into());
        }
        check(&all.0)?;
    }
}

/// Writes one message as one frame, with a single call to `write` where the writer takes it whole.
///
/// # Errors
/// [`Error::TooLong`], with nothing written, and [`Error::Io`].
pub fn write(writer: &mut impl Write, message: &impl Message) -> Result<(), Error> {
    writer.write_all(&encode(message)?)?;
    Ok(())
}

/// A message as a whole frame, length included.
///
/// # Errors
/// [`Error::TooLong`]
pub fn encode(message: &impl Message) -> Result<Body, Error> {
    let mut frame = WipingBuffer(Zeroizing::new(Vec::with_capacity(1024)));
    frame.0.extend_from_slice(&[0; 4]);
    rmp_serde::encode::write_named(&mut frame, message)
        .map_err(|_| Error::Malformed("it has no MessagePack form"))?;
    let mut frame = frame.0;
    let length = frame.len() - 4;
    match (u32::try_from(length), frame.first_chunk_mut()) {
        (Ok(prefix), Some(first)) if length <= MAX_LEN => *first = prefix.to_be_bytes(),
        _ => return Err(Error::TooLong(length)),
    }
    Ok(frame)
}

/// Cuts a listing to what fits into a frame. Answers whether there was more.
pub fn truncate<T: Serialize>(listing: &mut Vec<T>) -> bool {
    // The rest of the message is the names of its fields.
    let mut left = MAX_LEN - 256;
    let fits = |item: &T| {
        let size = rmp_serde::to_vec_named(item).map_or(usize::MAX, |bytes| bytes.len());
        left.checked_sub(size).map(|rest| left = rest)
    };
    let count = listing.iter().map_while(fits).count();
    let truncated = count < listing.len();
    listing.truncate(count);
    truncated
}
