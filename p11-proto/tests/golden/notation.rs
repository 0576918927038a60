//! The notation of the bytes: hex, with texts in quotes, as in `"81 a4 'Ping' 80"`.

use std::fmt::Debug;

use p11_proto::message::Message;
use p11_proto::{Error, frame};

/// The message is written as these bytes, and they are read as this message.
pub fn assert_golden<M: Message + PartialEq + Debug>(message: &M, notation: &str) {
    let bytes = wire(notation);
    let encoded = frame::encode(message).unwrap();
    assert_eq!(encoded[4..], bytes, "encoding {message:?}");
    assert_eq!(&frame::decode::<M>(&bytes).unwrap(), message);
}

/// The message of a body in this notation.
pub fn body<M: Message>(notation: &str) -> Result<M, Error> {
    frame::decode(&wire(notation))
}

/// The bytes themselves.
pub fn wire(notation: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in notation.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend(part.as_bytes());
            continue;
        }
        let digits: Vec<_> = part.chars().filter(|c| !c.is_whitespace()).collect();
        for pair in digits.chunks(2) {
            let pair: String = pair.iter().collect();
            bytes.push(u8::from_str_radix(&pair, 16).unwrap());
        }
    }
    bytes
}
