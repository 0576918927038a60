//! Bytes that are no message, and frames that are none.

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
        "81 a4 'Ping' c0",
        "81 a7 'OpenKey' 82 a3 'uri' a0 a3 'uri' a0",
        "dd ffffffff",
        "81 a7 'OpenKey' 81 a3 'uri' db ffffffff",
        "c1",
    ] {
        assert_malformed(bytes);
    }
}

#[test]
fn a_message_has_one_name_and_the_name_is_a_text() {
    // Its place in the list of messages.
    assert_malformed("81 00 80");
    assert_malformed("81 c4 04 'Ping' 80");
    assert_malformed("82 a4 'Ping' 80 a4 'Ping' 80");
    assert_malformed("82 a4 'Ping' 80 a7 'Unknown' 80");
}

#[test]
fn a_value_of_another_kind_is_malformed() {
    let sign = |uri: &str, scheme: &str, message: &str| {
        body::<Request>(&format!(
            "81 a4 'Sign' 84 a3 'uri' {uri} a6 'scheme' {scheme} a7 'message' {message} a8 'identity' c4 20 {IDENTITY}"
        ))
    };
    sign("a1 'u'", "01", "c4 01 ff").unwrap();
    for (uri, scheme, message) in [
        ("c4 01 'u'", "01", "c4 01 ff"),
        ("01", "01", "c4 01 ff"),
        ("a1 ff", "01", "c4 01 ff"),
        ("a1 'u'", "ff", "c4 01 ff"),
        ("a1 'u'", "d0 01", "c4 01 ff"),
        ("a1 'u'", "ce 00010000", "c4 01 ff"),
        ("a1 'u'", "ca 3f800000", "c4 01 ff"),
        ("a1 'u'", "a1 '1'", "c4 01 ff"),
        ("a1 'u'", "01", "a1 'x'"),
        ("a1 'u'", "01", "91 01"),
    ] {
        let result = sign(uri, scheme, message);
        assert!(
            matches!(result, Err(Error::Malformed(_))),
            "{uri} {scheme} {message}"
        );
    }
}

#[test]
fn fields_have_names_and_variants_are_texts() {
    // The fields in their order, then by their numbers.
    assert_malformed("81 a7 'OpenKey' 91 a1 'u'");
    assert_malformed("81 a7 'OpenKey' 81 00 a1 'u'");
    assert_malformed("81 a7 'OpenKey' 82 a3 'uri' a1 'u' 01 c0");
    let failure = |code: &str| {
        body::<Response>(&format!(
            "81 a5 'Error' 82 a4 'code' {code} a7 'message' a0"
        ))
    };
    failure("a4 'Busy'").unwrap();
    for code in ["00", "81 a4 'Busy' c0", "c4 04 'Busy'"] {
        assert!(matches!(failure(code), Err(Error::Malformed(_))), "{code}");
    }
}

#[test]
fn what_is_missing_or_of_another_length_is_malformed() {
    assert_malformed("81 a7 'OpenKey' 80");
    let short = &IDENTITY[2..];
    assert_malformed(&format!(
        "81 a4 'Sign' 84 a3 'uri' a0 a6 'scheme' 01 a7 'message' c4 00 a8 'identity' c4 1f {short}"
    ));
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
    assert!(body::<Request>(&nested(8)).is_ok());
    for depth in [32, 100_000] {
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

fn assert_malformed(notation: &str) {
    let result = body::<Request>(notation);
    assert!(
        matches!(result, Err(Error::Malformed(_))),
        "{notation}: {result:?}"
    );
}
