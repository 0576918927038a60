//! Bytes that are no message, and frames that are none.

use std::fmt::Debug;

use p11_proto::message::Sign;
use p11_proto::{Error, Request, Response, frame};

use crate::notation::{body, wire};
use crate::signing::{IDENTITY, identity};
use crate::{all_requests, all_responses};

#[test]
fn what_is_no_message_is_malformed() {
    for bytes in [
        "",
        "80",
        "c0",
        "a4 'Ping'",
        "91 a4 'Ping'",
        "81 c3 80",
        "dd ffffffff",
        "81 a7 'OpenKey' 81 a3 'uri' db ffffffff",
        "c1",
        "81 a4 'Ping' 81 a1 'x' c1",
    ] {
        assert_malformed(bytes);
    }
}

#[test]
fn a_message_has_one_name_and_the_name_is_a_text() {
    // Its place in the list of messages.
    assert_malformed("81 00 80");
    assert_malformed("81 c4 04 'Ping' 80");
    assert_malformed("81 a4 ffffffff 80");
    assert_malformed("82 a4 'Ping' 80 a4 'Ping' 80");
    assert_malformed("82 a4 'Ping' 80 a7 'Unknown' 80");
}

/// PROTOCOL.md lets readers take them and senders not: what is read today says nothing of tomorrow. Here it is so
/// that a change is noticed.
#[test]
fn fields_by_place_or_number_and_words_by_number_are_no_refusal_yet() {
    let open = body::<Request>("81 a7 'OpenKey' 81 a3 'uri' a1 'u'").unwrap();
    for fields in ["91 a1 'u'", "81 00 a1 'u'", "81 c4 03 'uri' a1 'u'"] {
        let read = body::<Request>(&format!("81 a7 'OpenKey' {fields}"));
        assert_eq!(read.unwrap(), open, "{fields}");
    }
    let create = |key_type| {
        body::<Request>(&format!(
            "81 a9 'CreateKey' 83 a3 'uri' a0 a5 'label' a0 a3 'key' 81 a8 'key_type' {key_type}"
        ))
    };
    assert_eq!(create("01").unwrap(), create("a2 'EC'").unwrap());
    let error = |code| {
        body::<Response>(&format!(
            "81 a5 'Error' 82 a7 'message' a0 a4 'code' {code}"
        ))
    };
    assert_eq!(error("04").unwrap(), error("aa 'BadRequest'").unwrap());
    assert_eq!(error("7f").unwrap(), error("a5 'Later'").unwrap());
}

#[test]
fn a_field_of_another_type_is_named() {
    let sign = |uri: &str, scheme: &str, message: &str| {
        body::<Request>(&format!(
            "81 a4 'Sign' 84 a3 'uri' {uri} a6 'scheme' {scheme} a7 'message' {message} a8 'identity' c4 20 {IDENTITY}"
        ))
    };
    sign("a1 'u'", "01", "c4 01 ff").unwrap();
    for (uri, scheme, message, field) in [
        ("01", "01", "c4 01 ff", "Sign.uri"),
        ("a1 ff", "01", "c4 01 ff", "Sign.uri"),
        ("a1 'u'", "ff", "c4 01 ff", "Sign.scheme"),
        ("a1 'u'", "ce 00010000", "c4 01 ff", "Sign.scheme"),
        ("a1 'u'", "ca 3f800000", "c4 01 ff", "Sign.scheme"),
        ("a1 'u'", "a1 '1'", "c4 01 ff", "Sign.scheme"),
        ("a1 'u'", "01", "01", "Sign.message"),
    ] {
        assert_wrong_field(sign(uri, scheme, message), field);
    }
    for (request, field) in [
        ("81 a4 'Ping' c0", "Ping"),
        (
            "81 a7 'OpenKey' 82 a3 'uri' a0 a4 'spki' 01",
            "OpenKey.spki",
        ),
        (
            "81 a9 'ChangePin' 82 a7 'new_pin' a1 '1' a5 'reset' 01",
            "ChangePin.reset",
        ),
        (
            "81 a9 'CreateKey' 82 a3 'uri' a0 a3 'key' 82 a8 'key_type' a2 'EC' a4 'bits' ff",
            "CreateKey.key.bits",
        ),
    ] {
        assert_wrong_field(body::<Request>(request), field);
    }
}

#[test]
fn a_field_that_is_missing_or_there_twice_is_named() {
    for (request, text) in [
        (
            "81 a7 'OpenKey' 80".to_owned(),
            "the field OpenKey.uri is missing",
        ),
        (
            "81 a9 'CreateKey' 82 a3 'uri' a0 a3 'key' 81 a4 'bits' 01".to_owned(),
            "the field CreateKey.key.key_type is missing",
        ),
        (
            "81 a7 'OpenKey' 82 a3 'uri' a0 a3 'uri' a0".to_owned(),
            "the field OpenKey.uri is there twice",
        ),
        (
            format!(
                "81 a4 'Sign' 84 a3 'uri' a0 a6 'scheme' 01 a7 'message' c4 00
                 a8 'identity' c4 1f {}",
                &IDENTITY[2..]
            ),
            "the field Sign.identity has a value of the wrong type or size",
        ),
    ] {
        assert_eq!(body::<Request>(&request).unwrap_err().to_string(), text);
    }
    assert_wrong_field(
        body::<Response>("81 a6 'Tokens' 81 a6 'tokens' 91 80"),
        "Tokens.tokens[0].slot",
    );
}

#[test]
fn bytes_after_the_message_are_malformed() {
    for (_, notation) in all_requests() {
        for more in ["00", "c0", "c1", "81 a4 'Ping' 80"] {
            let result = body::<Request>(&format!("{notation} {more}"));
            assert!(
                matches!(result, Err(Error::Malformed("bytes follow it"))),
                "{result:?}"
            );
        }
    }
}

#[test]
fn deep_nesting_is_malformed() {
    let nested = |depth: usize| format!("81 a4 'Ping' 81 a1 'x' {} c0", "91".repeat(depth));
    assert!(body::<Request>(&nested(14)).is_ok());
    for depth in [15, 32, 100_000] {
        assert_malformed(&nested(depth));
    }
}

#[test]
fn truncated_bodies_are_malformed() {
    for (message, notation) in all_requests() {
        let bytes = wire(&notation);
        for end in 0..bytes.len() {
            let result = frame::decode::<Request>(&bytes[..end]);
            assert!(
                matches!(result, Err(Error::Malformed(_))),
                "{end} bytes of {message:?}: {result:?}"
            );
        }
    }
    for (message, notation) in all_responses() {
        let bytes = wire(&notation);
        for end in 0..bytes.len() {
            let result = frame::decode::<Response>(&bytes[..end]);
            assert!(
                matches!(result, Err(Error::Malformed(_))),
                "{end} bytes of {message:?}: {result:?}"
            );
        }
    }
}

#[test]
fn truncated_frames_are_told_from_a_closed_connection() {
    assert!(matches!(frame::read(&mut [].as_slice()), Ok(None)));
    for (message, _) in all_requests() {
        let bytes = frame::encode(&message).unwrap();
        for end in 1..bytes.len() {
            let result = frame::read(&mut &bytes[..end]);
            assert!(
                matches!(result, Err(Error::Truncated)),
                "{end} bytes of {message:?}: {result:?}"
            );
        }
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused_before_it_is_read() {
    for length in ["00 10 00 01", "ff ff ff ff"] {
        let result = frame::read(&mut wire(length).as_slice());
        assert!(
            matches!(result, Err(Error::TooLong(_))),
            "{length}: {result:?}"
        );
    }

    let mut largest = wire("00 10 00 00");
    largest.resize(4 + frame::MAX_LEN, 0);
    assert_eq!(
        frame::read(&mut largest.as_slice()).unwrap().unwrap().len(),
        frame::MAX_LEN
    );
}

#[test]
fn a_message_that_is_too_long_is_not_sent() {
    let request = |length| Request::Sign(Sign::new("", 1, vec![0; length], identity()));
    let mut written = Vec::new();
    let result = frame::write(&mut written, &request(frame::MAX_LEN));
    assert!(matches!(result, Err(Error::TooLong(_))), "{result:?}");
    assert!(written.is_empty());
    assert!(frame::write(&mut written, &request(frame::MAX_LEN - 200)).is_ok());
}

fn assert_wrong_field<M: Debug>(result: Result<M, Error>, field: &str) {
    assert!(
        matches!(&result, Err(Error::Field { path, .. }) if path == field),
        "{field}: {result:?}"
    );
}

fn assert_malformed(notation: &str) {
    let result = body::<Request>(notation);
    assert!(
        matches!(result, Err(Error::Malformed(_))),
        "{notation}: {result:?}"
    );
}
