//! Encoding and decoding of tedge1: a version, the number of the message, its fields in postcard.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::body::{Body, MAX_LEN};
use crate::error::Error;

/// The first byte of every message. A client of protocol 1 sends "P" instead.
pub const VERSION: u8 = 0;

/// An enum of messages, each of a number and at most one value, with its codec.
macro_rules! messages {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $($(#[$doc:meta])* $message:ident $(($fields:ty))? = $number:tt,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)] // The number is written by `encode`.
        pub enum $name {
            $($(#[$doc])* $message $(($fields))?,)*
        }

        impl $name {
            /// The message that these bytes begin with.
            ///
            /// # Errors
            /// [`Error::NotTedge1`] for another version, [`Error::UnknownNumber`] for a message
            /// that does not belong here, [`Error::Malformed`] for anything else.
            pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
                let (number, fields) = codec::open(bytes)?;
                match u8::try_from(number) {
                    $(Ok($number) => Ok(Self::$message $((codec::read::<$fields>(fields)?))?),)*
                    _ => Err(Error::UnknownNumber(number)),
                }
            }

            /// The bytes of this message.
            ///
            /// # Errors
            /// [`Error::TooLong`]
            pub fn encode(&self) -> Result<Body, Error> {
                codec::write(self.number(), self)
            }

            /// The name of this message, without what it holds.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$message { .. } => stringify!($message),)*
                }
            }

            fn number(&self) -> u8 {
                match self {
                    $(Self::$message { .. } => $number,)*
                }
            }
        }
    };
}
pub(super) use messages;

/// The number of a message, and the bytes of its fields.
pub(super) fn open(bytes: &[u8]) -> Result<(u32, &[u8]), Error> {
    match bytes.split_first() {
        Some((&VERSION, message)) => take(message),
        Some(_) => Err(Error::NotTedge1),
        None => Err(Error::Malformed("it is empty")),
    }
}

/// The value that these bytes begin with.
pub(super) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    Ok(take(bytes)?.0)
}

/// The bytes of a message, whose number is below 128 and so is one byte as a varint.
///
/// Measured first: a buffer that grows would leave copies of a PIN behind.
pub(super) fn write(number: u8, fields: &impl Serialize) -> Result<Body, Error> {
    const BAD: Error = Error::Malformed("it has no postcard form");
    let message = (VERSION, number, fields);
    let length = postcard::experimental::serialized_size(&message).map_err(|_| BAD)?;
    if length > MAX_LEN {
        return Err(Error::TooLong(length));
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    postcard::to_slice(&message, &mut bytes).map_err(|_| BAD)?;
    Ok(bytes)
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Error> {
    postcard::take_from_bytes(bytes).map_err(|error| {
        Error::Malformed(match error {
            postcard::Error::DeserializeUnexpectedEnd => "it ends too early",
            postcard::Error::DeserializeBadUtf8 => "a text is not UTF-8",
            _ => "a field has a value that cannot be",
        })
    })
}
