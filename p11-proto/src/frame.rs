//! Protocol 1 on the wire: a preamble of four bytes, then frames, each a length and a body.

use std::io::{self, Read, Write};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::message::Message;
use crate::reader::{DecodeError, Reader};

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// The mark that a client of protocol 1 sends first. A tedge1 client sends a zero byte instead.
pub const MAGIC: [u8; 3] = *b"P11";

/// Mark and version: what a client sends before its first frame.
pub const PREAMBLE: [u8; 4] = [MAGIC[0], MAGIC[1], MAGIC[2], VERSION];

/// The longest body, in bytes, either way. TLS 1.2 signs whole transcripts, hence so much.
pub const MAX_LEN: usize = 1 << 20;

/// A body that may hold a PIN and is wiped when dropped.
pub type Body = Zeroizing<Vec<u8>>;

/// Checks a preamble that was read.
///
/// # Errors
/// [`Error::NotProtocol1`] for another mark, [`Error::Version`] for another version.
pub fn check_preamble(preamble: [u8; 4]) -> Result<(), Error> {
    match preamble {
        PREAMBLE => Ok(()),
        [a, b, c, version] if [a, b, c] == MAGIC => Err(Error::Version(version)),
        _ => Err(Error::NotProtocol1),
    }
}

/// Reads the body of one frame; `None` when the peer closed the connection before it began.
///
/// # Errors
/// [`Error::TooLong`] before anything is allocated, [`Error::Truncated`], [`Error::Io`].
pub fn read(reader: &mut impl Read) -> Result<Option<Body>, Error> {
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
    if length > MAX_LEN {
        return Err(Error::TooLong(length));
    }
    let mut body = Zeroizing::new(vec![0; length]);
    reader.read_exact(&mut body).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::Truncated,
        _ => Error::Io(e),
    })?;
    Ok(Some(body))
}

/// Reads all that a peer sends until it shuts down its writing half: a message of [`crate::tedge1`].
///
/// # Errors
/// [`Error::TooLong`] as soon as there is more than [`MAX_LEN`], [`Error::Io`].
pub fn read_to_end(reader: &mut impl Read) -> Result<Body, Error> {
    let mut all = WipingBuffer(Body::default());
    let mut chunk = Zeroizing::new([0; 4096]);
    loop {
        match reader.read(&mut *chunk) {
            Ok(0) => return Ok(all.0),
            Ok(count) => all.write_all(chunk.get(..count).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
        if all.0.len() > MAX_LEN {
            return Err(Error::TooLong(all.0.len()));
        }
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
    match u32::try_from(length) {
        Ok(prefix) if length <= MAX_LEN => {
            for (place, byte) in frame.iter_mut().zip(prefix.to_be_bytes()) {
                *place = byte;
            }
            Ok(frame)
        }
        _ => Err(Error::TooLong(length)),
    }
}

/// A buffer that leaves no copy of a PIN behind when it grows.
struct WipingBuffer(Body);

impl Write for WipingBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Vec::with_capacity(2 * (self.0.len() + bytes.len()));
            larger.extend_from_slice(&self.0);
            self.0 = Zeroizing::new(larger);
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

/// The message in the body of a frame.
///
/// # Errors
/// [`Error::UnknownMessage`] for a well-formed message of another name, [`Error::Malformed`] for
/// anything else, bytes after the message among it.
pub fn decode<M: Message>(body: &[u8]) -> Result<M, Error> {
    // Borrows from the body: a PIN is copied once, into the `Pin` that will be wiped.
    let mut reader = Reader::new(body);
    match M::deserialize(&mut reader) {
        Ok(message) if reader.is_at_end() => Ok(message),
        Ok(_) => Err(Error::Malformed("bytes follow it")),
        Err(fault) => match name(body) {
            Ok(Some(name)) if !M::NAMES.contains(&name) => Err(Error::UnknownMessage(name.into())),
            _ => Err(Error::Malformed(fault.explain())),
        },
    }
}

/// The name of a message whose fields may be any; `None` where there is more than one message.
fn name(body: &[u8]) -> Result<Option<&str>, DecodeError> {
    let mut reader = Reader::new(body);
    let entries = reader.map()?;
    let name = reader.text()?;
    reader.skip()?;
    Ok(Some(name).filter(|_| entries == 1 && reader.is_at_end()))
}
