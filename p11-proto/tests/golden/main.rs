//! The bytes of protocol 1, written out: what is on the wire today must be readable for ever.
//!
//! One file for each family of messages, as in the crate, and two for what is refused and for what
//! is kept secret. All bytes were once held against those of Python's `msgpack`.
#![cfg(test)]

mod notation;
mod objects;
mod refusals;
mod secrets;
mod signing;
mod status;
mod tokens;

use p11_proto::message::{Message, Ping};
use p11_proto::{Error, Request, Response, frame};

use notation::{assert_golden, body, wire};

#[test]
fn the_preamble() {
    assert_eq!(frame::PREAMBLE.as_slice(), wire("'P11' 01"));
    assert!(frame::check_preamble(*b"P11\x01").is_ok());
    assert!(matches!(
        frame::check_preamble(*b"P11\x02"),
        Err(Error::Version(2))
    ));
    assert!(matches!(
        frame::check_preamble([0, 8, 0, 0]),
        Err(Error::NotProtocol1)
    ));
}

#[test]
fn a_frame_is_a_length_and_a_message() {
    let bytes = wire("00 00 00 07  81 a4 'Ping' 80");
    assert_eq!(
        *frame::encode(&Request::Ping(Ping::default())).unwrap(),
        bytes
    );
    let body = frame::read(&mut bytes.as_slice()).unwrap().unwrap();
    assert_eq!(*body, bytes[4..]);
}

#[test]
fn requests() {
    for (message, notation) in all_requests() {
        assert_golden(&message, &notation);
    }
}

#[test]
fn responses() {
    for (message, notation) in all_responses() {
        assert_golden(&message, &notation);
    }
}

#[test]
fn no_message_is_left_out() {
    let requests = all_requests();
    let responses = all_responses();
    for name in Request::NAMES {
        assert!(requests.iter().any(|(m, _)| m.name() == *name), "{name}");
    }
    for name in Response::NAMES {
        assert!(responses.iter().any(|(m, _)| m.name() == *name), "{name}");
    }
}

#[test]
fn fields_that_are_not_known_are_ignored() {
    // Among them one that holds maps and arrays, and one that comes first.
    let request = "81 a7 'OpenKey' 83 a5 'color' 93 01 81 a1 'a' c0 c4 01 ff
                   a3 'uri' a7 'pkcs11:' a5 'later' 80";
    assert!(matches!(
        body(request),
        Ok(Request::OpenKey(open)) if &*open.uri == "pkcs11:" && open.pin.is_none()
    ));
    assert_eq!(
        body::<Request>("81 a4 'Ping' 81 a1 'x' 01").unwrap(),
        Request::Ping(Ping::default())
    );
}

/// A value of each kind of MessagePack, in the order of its specification.
const VALUES: &[&str] = &[
    "c0",
    "c2",
    "c3",
    "7f",
    "e0",
    "cc ff",
    "cd ffff",
    "ce ffffffff",
    "cf ffffffffffffffff",
    "d0 80",
    "d1 8000",
    "d2 80000000",
    "d3 8000000000000000",
    "ca 3f800000",
    "cb 3ff0000000000000",
    "a1 'x'",
    "d9 01 'x'",
    "da 0001 'x'",
    "db 00000001 'x'",
    "c4 01 ff",
    "c5 0001 ff",
    "c6 00000001 ff",
    "91 c0",
    "dc 0001 c0",
    "dd 00000001 c0",
    "81 c0 c0",
    "de 0001 c0 c0",
    "df 00000001 c0 c0",
    "d4 01 00",
    "d5 01 0000",
    "d6 01 00000000",
    "d7 01 0000000000000000",
    "d8 01 00000000000000000000000000000000",
    "c7 01 01 00",
    "c8 0001 01 00",
    "c9 00000001 01 00",
];

#[test]
fn a_field_that_is_not_known_may_hold_any_value() {
    for value in VALUES {
        let request = format!("81 a4 'Ping' 82 a1 'x' {value} a1 'y' {value}");
        assert_eq!(
            body::<Request>(&request).unwrap(),
            Request::Ping(Ping::default())
        );
        let bytes = wire(&request);
        for end in 0..bytes.len() {
            let result = frame::decode::<Request>(&bytes[..end]);
            assert!(
                matches!(result, Err(Error::Malformed(_))),
                "{end} bytes of {request}"
            );
        }
    }
}

#[test]
fn lengths_and_numbers_may_be_of_any_width() {
    let identity = signing::IDENTITY;
    for (map, name, uri, scheme, message) in [
        ("81", "a4", "a1", "cc 01", "c4 01"),
        ("de 0001", "d9 04", "d9 01", "cd 0001", "c5 0001"),
        (
            "df 00000001",
            "da 0004",
            "da 0001",
            "ce 00000001",
            "c6 00000001",
        ),
        (
            "81",
            "db 00000004",
            "db 00000001",
            "cf 0000000000000001",
            "c4 01",
        ),
    ] {
        let request = format!(
            "{map} {name} 'Sign' 84 a3 'uri' {uri} 'u' a6 'scheme' {scheme} a7 'message' {message} ff
             a8 'identity' c4 20 {identity}"
        );
        let Request::Sign(sign) = body(&request).unwrap() else {
            panic!("{request}");
        };
        assert_eq!(
            (&*sign.uri, sign.scheme, &sign.message[..]),
            ("u", 1, &[0xff][..])
        );
    }
}

#[test]
fn optional_fields_may_be_absent_or_nil() {
    for request in [
        "81 a7 'OpenKey' 81 a3 'uri' a0",
        "81 a7 'OpenKey' 83 a3 'uri' a0 a3 'pin' c0 a4 'spki' c0",
    ] {
        assert!(matches!(
            body(request),
            Ok(Request::OpenKey(open)) if open.pin.is_none() && open.spki.is_none()
        ));
    }
    assert!(matches!(
        body("81 a9 'ChangePin' 82 a7 'new_pin' a1 '1' a5 'reset' c0"),
        Ok(Request::ChangePin(change)) if !change.reset
    ));
    assert!(matches!(
        body("81 a6 'Tokens' 82 a6 'tokens' 90 a9 'truncated' c0"),
        Ok(Response::Tokens(tokens)) if !tokens.truncated
    ));
}

#[test]
fn the_order_of_fields_is_free() {
    let request = format!(
        "81 a4 'Sign' 84 a8 'identity' c4 20 {} a7 'message' c4 01 00
         a6 'scheme' cd 0403 a3 'uri' a0",
        signing::IDENTITY
    );
    assert!(matches!(body(&request), Ok(Request::Sign(sign)) if sign.scheme == 0x0403));
}

#[test]
fn a_message_of_a_newer_peer_is_named() {
    let unknown = body::<Request>("81 aa 'FlyToMoon!' 81 a1 'x' 01");
    assert!(
        matches!(&unknown, Err(Error::UnknownMessage(name)) if name == "FlyToMoon!"),
        "{unknown:?}"
    );
    let unknown = body::<Response>("81 a4 'Ping' 80");
    assert!(
        matches!(&unknown, Err(Error::UnknownMessage(name)) if name == "Ping"),
        "{unknown:?}"
    );
}

/// Every request, with all optional fields and with none, and its bytes.
fn all_requests() -> Vec<(Request, String)> {
    let families = [
        status::requests(),
        signing::requests(),
        tokens::requests(),
        objects::requests(),
    ];
    families.into_iter().flatten().collect()
}

/// Every response, likewise.
fn all_responses() -> Vec<(Response, String)> {
    let families = [
        status::responses(),
        signing::responses(),
        tokens::responses(),
        objects::responses(),
    ];
    families.into_iter().flatten().collect()
}
