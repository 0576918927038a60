//! The bytes of protocol 1, written out: what is on the wire today must be readable for ever.
//!
//! One file for each family of messages, as in the crate, and two for what is refused and for what
//! is kept secret. All bytes were once held against those of Python's `msgpack`.
#![cfg(test)]

mod life;
mod notation;
mod objects;
mod refusals;
mod secrets;
mod signing;
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
    assert_eq!(*frame::encode(&Request::Ping(Ping {})).unwrap(), bytes);
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
        Request::Ping(Ping {})
    );
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
        life::requests(),
        signing::requests(),
        tokens::requests(),
        objects::requests(),
    ];
    families.into_iter().flatten().collect()
}

/// Every response, likewise.
fn all_responses() -> Vec<(Response, String)> {
    let families = [
        life::responses(),
        signing::responses(),
        tokens::responses(),
        objects::responses(),
    ];
    families.into_iter().flatten().collect()
}
