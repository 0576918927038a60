//! Released clients, which speak tedge1, as raw bytes: no code of ours encodes or decodes them.

mod commands;
mod errors;
mod exchange;
mod handshake;
mod keys;
mod tokens;

use std::path::PathBuf;

use p11_tests::{raw_client::exchange_bytes, server::Server};

/// An optional field that is not there.
const NONE: &[u8] = &[0];

/// A released client.
struct Tedge1Client {
    socket: PathBuf,
}

impl Tedge1Client {
    fn of(server: &Server) -> Self {
        let socket = server.socket().into();
        Self { socket }
    }

    /// One request, on a connection of its own, and the whole reply.
    fn ask(&self, request: &[u8]) -> Vec<u8> {
        exchange_bytes(&self.socket, request)
    }

    /// The text of the error that the reply must be.
    fn refused(&self, request: &[u8]) -> String {
        let reply = self.ask(request);
        let Some(text) = reply.strip_prefix(&[0, 0]) else {
            panic!("no error but {reply:?}");
        };
        let (length, text) = varint_of(text);
        assert_eq!(length, text.len() as u64);
        String::from_utf8(text.to_vec()).unwrap()
    }
}

/// A message: version 0, its number, its fields.
fn message(number: u8, fields: &[&[u8]]) -> Vec<u8> {
    [&[0, number], &*fields.concat()].concat()
}

/// A string or bytes: the length and what it is the length of.
fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [varint(text.len() as u64), text.to_vec()].concat()
}

/// An optional string that is there.
fn some(value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![1], text(value)].concat()
}

/// A list: the number of values, and the values.
fn list(values: &[Vec<u8>]) -> Vec<u8> {
    [varint(values.len() as u64), values.concat()].concat()
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// The number at the beginning, and what follows.
fn varint_of(bytes: &[u8]) -> (u64, &[u8]) {
    let end = bytes.iter().position(|byte| *byte < 0x80).unwrap() + 1;
    let (number, rest) = bytes.split_at(end);
    let number = number
        .iter()
        .rev()
        .fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f));
    (number, rest)
}

/// The string or bytes at the beginning, and what follows.
fn text_of(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = varint_of(bytes);
    rest.split_at(length as usize)
}

/// Which of these schemes can the key do?
fn choose(offered: &[u16], uri: &str) -> Vec<u8> {
    let offered: Vec<_> = offered
        .iter()
        .map(|scheme| varint((*scheme).into()))
        .collect();
    message(1, &[&list(&offered), &some(uri), NONE])
}

/// A signature with the key's own scheme.
fn sign(message_to_sign: &[u8], uri: &str) -> Vec<u8> {
    message(2, &[&text(message_to_sign), &some(uri), NONE])
}

/// The signature that the reply must be.
#[track_caller]
fn signature(reply: &[u8]) -> &[u8] {
    let Some(signature) = reply.strip_prefix(&[0, 4]) else {
        panic!("no signature but {}", String::from_utf8_lossy(reply));
    };
    let (signature, rest) = text_of(signature);
    assert!(rest.is_empty(), "{rest:?}");
    signature
}
