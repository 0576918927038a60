//! Frames that no client would send, drawn from those that clients do. The fuzz target `exchange`
//! goes on where this ends.

use std::thread;

use fastrand::Rng;
use p11_proto::message::{
    ChangePin, CreateKey, DeleteCertificate, DeleteKey, GetCertificates, GetPublicKey, GetStatus,
    ImportCertificate, InitToken, KeySpec, KeyType, ListKeys, ListTokens, Message, OpenKey, Ping,
};
use p11_proto::{Request, frame};
use serde_bytes::ByteBuf;

use super::super::checks;
use super::fixture::sign;

/// A debug build, which wipes each buffer byte by byte, takes some 0.1 ms for each.
const FRAMES: usize = 30_000;
const THREADS: usize = 2;

#[test]
fn random_frames_are_answered_or_refused() {
    thread::scope(|scope| {
        for seed in 1..=THREADS as u64 {
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed);
                let frames = every_request();
                let mut sent = 0;
                while sent < FRAMES / THREADS {
                    sent += one_connection(&mut random, &frames);
                }
            });
        }
    });
}

/// Sends random frames until one ends the connection. Answers how many were read.
fn one_connection(random: &mut Rng, frames: &[Vec<u8>]) -> usize {
    let mut input = frame::PREAMBLE.to_vec();
    for _ in 0..32 {
        input.extend(random_frame(random, frames));
    }
    checks::exchange(&input)
}

/// Mostly a request with some bytes changed or cut, which may still be one; or only random bytes.
fn random_frame(random: &mut Rng, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut body = match random.usize(..16) {
        0 => (0..random.usize(..64)).map(|_| random.u8(..)).collect(),
        _ => frames[random.usize(..frames.len())][4..].to_vec(),
    };
    for _ in 0..random.usize(..3) {
        match (random.usize(..16), random.usize(..body.len() + 1)) {
            (0, at) => body.truncate(at),
            (1, at) => body.insert(at, random.u8(..)),
            (_, at) => {
                if let Some(byte) = body.get_mut(at) {
                    *byte = random.u8(..);
                }
            }
        }
    }
    let mut length = (body.len() as u32).to_be_bytes();
    if random.usize(..64) == 0 {
        length[random.usize(..4)] = random.u8(..);
    }
    [&length[..], &body].concat()
}

/// A frame of each request, with every field.
pub fn every_request() -> Vec<Vec<u8>> {
    let uri = "pkcs11:token=t;object=k?pin-value=1234";
    let pin = || Some("1234".into());
    let bytes = || ByteBuf::from(vec![7; 40]);
    let spec = KeySpec::new(KeyType::Rsa, 2048);
    let requests = [
        Request::Ping(Ping::default()),
        Request::Status(GetStatus::default()),
        Request::OpenKey(OpenKey::new(uri).pin(pin()).spki(bytes())),
        sign(b"message"),
        Request::ListTokens(ListTokens::default()),
        Request::ListKeys(ListKeys::new(uri).pin(pin())),
        Request::GetPublicKey(GetPublicKey::new(uri).pin(pin())),
        Request::GetCertificates(GetCertificates::new(uri).pin(pin())),
        Request::ImportCertificate(ImportCertificate::new(uri, bytes()).pin(pin())),
        Request::CreateKey(CreateKey::new(uri, spec, "label").pin(pin()).id(bytes())),
        Request::DeleteKey(DeleteKey::new(uri).pin(pin())),
        Request::DeleteCertificate(DeleteCertificate::new(uri).pin(pin())),
        Request::InitToken(
            InitToken::new("label")
                .uri(Some(uri.into()))
                .so_pin(pin())
                .pin(pin()),
        ),
        Request::ChangePin(
            ChangePin::new("5678")
                .uri(Some(uri.into()))
                .old_pin(pin())
                .so_pin(pin())
                .reset(true),
        ),
    ];
    assert_eq!(requests.len(), Request::NAMES.len(), "one is missing");
    requests
        .iter()
        .map(|request| frame::encode(request).unwrap().to_vec())
        .collect()
}
