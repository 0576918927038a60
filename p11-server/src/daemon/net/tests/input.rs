//! What is no request gets the answer that PROTOCOL.md promises.

use p11_proto::{ErrorCode, Failure, Response, frame, tedge1};

use super::super::checks::answer;
use super::frames::every_request;

/// All answers to these bytes after the preamble.
fn answers(frames: &[u8]) -> Vec<Response> {
    all(&answer(&[&frame::PREAMBLE[..], frames].concat()))
}

fn all(mut answer: &[u8]) -> Vec<Response> {
    let bodies = std::iter::from_fn(|| frame::read(&mut answer).unwrap());
    bodies.map(|body| frame::decode(&body).unwrap()).collect()
}

/// The one answer, which is an error of this code, to a client that says this and then a `Ping`: the
/// connection is closed before.
#[track_caller]
fn refused(code: ErrorCode, input: &[u8]) -> Failure {
    let ping = &every_request()[0][..];
    let mut answers = all(&answer(&[input, ping].concat()));
    match answers.pop() {
        Some(Response::Error(failure)) if answers.is_empty() => {
            assert_eq!(failure.code, code, "{failure}");
            failure
        }
        other => panic!("{other:?} after {answers:?}"),
    }
}

#[track_caller]
fn refused_frame(input: &[u8]) -> Failure {
    refused(ErrorCode::BadFrame, &[&frame::PREAMBLE[..], input].concat())
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

#[test]
fn every_request_is_answered() {
    let all: Vec<u8> = every_request().concat();
    let answers = answers(&all);
    assert_eq!(answers.len(), every_request().len());
    for answer in answers {
        assert!(!matches!(answer, Response::Error(_)), "{answer:?}");
    }
}

#[test]
fn bytes_after_the_message_are_refused() {
    for request in every_request() {
        let body = [&request[4..], b"\xc0"].concat();
        let failure = refused_frame(&framed(&body));
        assert!(failure.message.contains("bytes follow it"), "{failure}");
    }
}

#[test]
fn a_length_that_nobody_may_send_is_refused_unread() {
    let failure = refused_frame(&u32::MAX.to_be_bytes());
    assert!(failure.message.contains("too long"), "{failure}");
    refused_frame(&(frame::MAX_LEN as u32 + 1).to_be_bytes());
}

#[test]
fn deep_nesting_is_refused() {
    let ping = b"\x81\xa4Ping\x81\xa1x";
    let deep = [&ping[..], &[0x91; 100_000], b"\xc0"].concat();
    let failure = refused_frame(&framed(&deep[..8000]));
    assert!(failure.message.contains("nested"), "{failure}");
}

#[test]
fn a_field_that_is_missing_or_of_another_type_is_named_unquoted_and_the_connection_goes_on() {
    for fields in [
        &b"\x80"[..],
        b"\x81\xa3uri\x07",
        b"\x81\xa3uri\x91\xa5PIN42",
    ] {
        let wrong = framed(&[b"\x81\xa7OpenKey", fields].concat());
        match &answers(&[&wrong[..], &every_request()[0]].concat())[..] {
            [Response::Error(failure), Response::Pong(_)] => {
                assert_eq!(failure.code, ErrorCode::BadRequest);
                let named = failure.message.starts_with("the field OpenKey.uri ");
                assert!(named, "{failure}");
                assert!(!failure.message.contains("PIN42"), "{failure}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_message_of_another_name_is_not_supported_and_the_connection_goes_on() {
    let unknown = framed(b"\x81\xa3Fly\x81\xa2to\xa4moon");
    let ping = &every_request()[0];
    match &answers(&[&unknown, ping, &unknown].map(|frame| &frame[..]).concat())[..] {
        [
            Response::Error(failure),
            Response::Pong(_),
            Response::Error(_),
        ] => {
            assert_eq!(failure.code, ErrorCode::Unsupported);
            assert!(failure.message.contains("\"Fly\""), "{failure}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_name_of_a_message_is_quoted_in_part_and_escaped() {
    let name = format!("\x1b[2J{}", "x".repeat(200));
    let body = [&b"\x81\xd9\xcc"[..], name.as_bytes(), b"\x80"].concat();
    match &answers(&framed(&body))[..] {
        [Response::Error(failure)] => {
            assert_eq!(failure.code, ErrorCode::Unsupported);
            assert!(!failure.message.contains('\x1b'), "{failure}");
            assert!(failure.message.len() < 200, "{failure}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_version_is_told_the_highest_that_is_spoken() {
    for version in [0, 2, 255] {
        let failure = refused(ErrorCode::UnsupportedVersion, &[b'P', b'1', b'1', version]);
        assert!(failure.message.contains("highest is 1"), "{failure}");
    }
}

#[test]
fn what_begins_with_another_byte_is_told_that_this_is_not_the_protocol() {
    for first in ["GET / HTTP/1.1\r\n\r\n", "P12\x01", "\u{7f}", "P"] {
        let failure = refused(ErrorCode::BadFrame, first.as_bytes());
        assert!(failure.message.contains("not protocol 1"), "{failure}");
    }
}

#[test]
fn a_frame_that_ends_early_is_the_end() {
    for request in every_request() {
        for end in 1..request.len() {
            assert_eq!(answers(&request[..end]), [], "{end}");
        }
    }
}

#[test]
fn an_old_client_is_told_in_the_words_that_it_looks_for() {
    for input in [
        &b"\x00"[..],
        b"\x00\x63",
        b"\x00\x02\xff\xff\xff\xff\x0f",
        b"\x00\x02\x04ab",
    ] {
        match tedge1::Response::decode(&answer(input)).unwrap() {
            tedge1::Response::Error(why) => {
                assert!(
                    why.starts_with("Failed to parse the received frame"),
                    "{why}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_old_client_may_send_more_than_its_message() {
    let ping = tedge1::Request::Ping.encode().unwrap();
    let answer = answer(&[&ping[..], b"and more"].concat());
    assert_eq!(
        tedge1::Response::decode(&answer).unwrap(),
        tedge1::Response::Pong
    );
}
