//! What must hold for any input: the bodies of the fuzz targets, called by `corpus.rs` on stable too.

use std::fmt::Debug;

use p11_proto::message::Message;
use p11_proto::{Error, frame, tedge1};

/// Protocol 1: any frames are refused, or hold messages that are written and read alike.
pub fn frames(input: &[u8]) {
    let mut reader = input;
    while let Ok(Some(body)) = frame::read(&mut reader) {
        assert!(body.len() <= frame::MAX_LEN);
        same_when_framed::<p11_proto::Request>(&body);
        same_when_framed::<p11_proto::Response>(&body);
    }
}

/// tedge1: any bytes are refused, or hold a message that is written and read alike.
pub fn tedge1(input: &[u8]) {
    if let Ok(request) = tedge1::Request::decode(input) {
        let again = request
            .encode()
            .map(|bytes| tedge1::Request::decode(&bytes));
        assert!(same(&request, again), "{request:?}");
    }
    let Ok(response) = tedge1::Response::decode(input) else {
        return assert!(tedge1::advertised_protocol(input).is_none());
    };
    let again = response
        .encode()
        .map(|bytes| tedge1::Response::decode(&bytes));
    assert!(same(&response, again), "{response:?}");
    if let tedge1::Response::GetPublicKeyPem(pem) = &response
        && let Ok(key) = tedge1::public_key_from_legacy_pem(pem)
    {
        // 32 bytes are an Ed25519 key, never an RSA key, which would have some 200 bits.
        let again = tedge1::public_key_from_legacy_pem(&tedge1::legacy_pem(&key));
        assert!(
            again.is_ok_and(|again| again == key || key.key().len() == 32),
            "{pem}"
        );
    }
}

fn same_when_framed<M: Message + PartialEq + Debug>(body: &[u8]) {
    if let Ok(message) = frame::decode::<M>(body) {
        let again = frame::encode(&message).map(|frame| frame::decode(&frame[4..]));
        assert!(same(&message, again), "{message:?}");
    }
}

/// A peer may write a number or a name shorter than we do: only then is the message too long.
fn same<M: PartialEq>(message: &M, again: Result<Result<M, Error>, Error>) -> bool {
    match again {
        Ok(again) => again.is_ok_and(|again| again == *message),
        Err(error) => matches!(error, Error::TooLong(_)),
    }
}
