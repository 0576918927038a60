//! The bytes of protocol 1, written out: what is on the wire today must be readable for ever.
//!
//! A frame is written as hex, with texts in quotes: `"00 00 00 07 81 a4 'Ping' 80"`.
#![cfg(test)]

use p11_proto::message::{
    GetStatus, Key, KeyType, Message, OpenKey, Ping, Pong, Sign, Signature, Status,
};
use p11_proto::{Error, ErrorCode, Failure, Identity, Pin, Request, Response, frame};
use serde_bytes::ByteBuf;

/// RFC 8032 section 7.1, test 1, as a `SubjectPublicKeyInfo`.
const SPKI: &str = "30 2a 30 05 06 03 2b 65 70 03 21 00 \
    d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// Its SHA-256.
const IDENTITY: &str = "06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9";

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
fn requests() {
    for (message, bytes) in requests_and_bytes() {
        assert_golden(&message, &bytes);
    }
}

#[test]
fn responses() {
    for (message, bytes) in responses_and_bytes() {
        assert_golden(&message, &bytes);
    }
}

#[test]
fn no_message_is_left_out() {
    let requests = requests_and_bytes();
    let responses = responses_and_bytes();
    for name in Request::NAMES {
        assert!(requests.iter().any(|(m, _)| m.name() == *name), "{name}");
    }
    for name in Response::NAMES {
        assert!(responses.iter().any(|(m, _)| m.name() == *name), "{name}");
    }
}

#[test]
fn error_codes() {
    let codes = [
        (ErrorCode::BadFrame, "BadFrame"),
        (ErrorCode::UnsupportedVersion, "UnsupportedVersion"),
        (ErrorCode::Unsupported, "Unsupported"),
        (ErrorCode::BadUri, "BadUri"),
        (ErrorCode::BadRequest, "BadRequest"),
        (ErrorCode::TokenNotFound, "TokenNotFound"),
        (ErrorCode::KeyNotFound, "KeyNotFound"),
        (ErrorCode::AmbiguousToken, "AmbiguousToken"),
        (ErrorCode::KeyChanged, "KeyChanged"),
        (ErrorCode::UnsupportedScheme, "UnsupportedScheme"),
        (ErrorCode::PinRequired, "PinRequired"),
        (ErrorCode::PinIncorrect, "PinIncorrect"),
        (ErrorCode::PinLocked, "PinLocked"),
        (ErrorCode::PinGuarded, "PinGuarded"),
        (ErrorCode::NotAllowed, "NotAllowed"),
        (ErrorCode::OutOfScope, "OutOfScope"),
        (ErrorCode::NotSupported, "NotSupported"),
        (ErrorCode::Busy, "Busy"),
        (ErrorCode::Timeout, "Timeout"),
        (ErrorCode::ModuleUnavailable, "ModuleUnavailable"),
        (ErrorCode::Module, "Module"),
        (ErrorCode::Internal, "Internal"),
        (ErrorCode::Unknown, "Unknown"),
    ];
    for (code, name) in codes {
        let bytes = framed(&format!(
            "81 a5 'Error' 82 a4 'code' {:02x} '{name}' a7 'message' a1 '-'",
            0xa0 + name.len()
        ));
        assert_golden(&Response::Error(Failure::new(code, "-")), &bytes);
    }
}

#[test]
fn key_types() {
    for (key_type, name) in [
        (KeyType::Rsa, "a3 'RSA'"),
        (KeyType::Ec, "a2 'EC'"),
        (KeyType::Ed25519, "a7 'Ed25519'"),
        (KeyType::Unknown, "a7 'Unknown'"),
    ] {
        let bytes = framed(&format!(
            "81 a3 'Key' 86 a3 'uri' a0 a8 'key_type' {name} a4 'bits' 00 a7 'schemes' 90
             a4 'spki' c4 00 a8 'identity' c4 20 {IDENTITY}"
        ));
        let key = Key {
            uri: String::new(),
            key_type,
            bits: 0,
            schemes: Vec::new(),
            spki: ByteBuf::new(),
            identity: identity(),
        };
        assert_golden(&Response::Key(key), &bytes);
    }
}

#[test]
fn codes_and_key_types_of_a_newer_peer_are_unknown() {
    let answer = "81 a5 'Error' 82 a4 'code' a8 'TooSunny' a7 'message' a1 '-'";
    assert_eq!(
        body::<Response>(answer).unwrap(),
        Response::Error(Failure::new(ErrorCode::Unknown, "-"))
    );
    let answer = format!(
        "81 a3 'Key' 86 a3 'uri' a0 a8 'key_type' a6 'ML-DSA' a4 'bits' 00 a7 'schemes' 90
         a4 'spki' c4 00 a8 'identity' c4 20 {IDENTITY}"
    );
    let Response::Key(key) = body(&answer).unwrap() else {
        panic!("not a key");
    };
    assert_eq!(key.key_type, KeyType::Unknown);
}

#[test]
fn fields_that_are_not_known_are_ignored() {
    // Among them one that holds maps and arrays, and one that comes first.
    let request = "81 a7 'OpenKey' 83 a5 'color' 93 01 81 a1 'a' c0 c4 01 ff
                   a3 'uri' a7 'pkcs11:' a5 'later' 80";
    let expected = Request::OpenKey(OpenKey {
        uri: "pkcs11:".to_owned(),
        pin: None,
        spki: None,
    });
    assert_eq!(body::<Request>(request).unwrap(), expected);
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
        let Request::OpenKey(open) = body(request).unwrap() else {
            panic!("not OpenKey");
        };
        assert_eq!((open.pin, open.spki), (None, None));
    }
    let missing = body::<Request>("81 a7 'OpenKey' 80");
    assert!(
        matches!(missing, Err(Error::Malformed(_))),
        "the URI is not optional: {missing:?}"
    );
}

#[test]
fn the_order_of_fields_is_free() {
    let request = format!(
        "81 a4 'Sign' 84 a8 'identity' c4 20 {IDENTITY} a7 'message' c4 01 00
         a6 'scheme' cd 0403 a3 'uri' a0"
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
        "82 a4 'Ping' 80 a4 'Ping' 80",
        "82 a4 'Ping' 80 a7 'Unknown' 80",
        "81 a7 'OpenKey' 82 a3 'uri' a0 a3 'uri' a0",
        "dd ffffffff",
        "81 a7 'OpenKey' 81 a3 'uri' db ffffffff",
        "c1",
    ] {
        let result = body::<Request>(bytes);
        assert!(
            matches!(result, Err(Error::Malformed(_))),
            "{bytes}: {result:?}"
        );
    }
    let short = format!(
        "81 a4 'Sign' 84 a3 'uri' a0 a6 'scheme' 01 a7 'message' c4 00 a8 'identity' c4 1f {}",
        &IDENTITY[2..]
    );
    assert!(
        matches!(body::<Request>(&short), Err(Error::Malformed(_))),
        "an identity has 32 bytes"
    );
}

#[test]
fn bytes_after_the_message_are_malformed() {
    for (_, bytes) in requests_and_bytes() {
        for more in ["00", "c0", "c1", "81 a4 'Ping' 80"] {
            let mut body = bytes[4..].to_vec();
            body.extend(wire(more));
            let result = frame::decode::<Request>(&body);
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
        let result = body::<Request>(&nested(depth));
        assert!(matches!(result, Err(Error::Malformed(_))), "{result:?}");
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
    let request = |length| {
        Request::Sign(Sign {
            uri: String::new(),
            pin: None,
            scheme: 1,
            message: ByteBuf::from(vec![0; length]),
            identity: identity(),
        })
    };
    let mut written = Vec::new();
    let result = frame::write(&mut written, &request(frame::MAX_LEN));
    assert!(matches!(result, Err(Error::TooLong(_))), "{result:?}");
    assert!(written.is_empty());
    assert!(frame::write(&mut written, &request(frame::MAX_LEN - 200)).is_ok());
}

#[test]
fn truncated_frames_are_told_from_a_closed_connection() {
    for (_, bytes) in requests_and_bytes() {
        assert!(matches!(frame::read(&mut [].as_slice()), Ok(None)));
        for end in 1..bytes.len() {
            let result = frame::read(&mut &bytes[..end]);
            assert!(
                matches!(result, Err(Error::Truncated)),
                "{end} bytes: {result:?}"
            );
        }
    }
}

#[test]
fn truncated_bodies_are_malformed() {
    for (_, bytes) in requests_and_bytes() {
        for end in 4..bytes.len() {
            let result = frame::decode::<Request>(&bytes[4..end]);
            assert!(
                matches!(result, Err(Error::Malformed(_))),
                "{end} bytes: {result:?}"
            );
        }
    }
    for (_, bytes) in responses_and_bytes() {
        for end in 4..bytes.len() {
            let result = frame::decode::<Response>(&bytes[4..end]);
            assert!(
                matches!(result, Err(Error::Malformed(_))),
                "{end} bytes: {result:?}"
            );
        }
    }
}

#[test]
fn no_error_quotes_a_pin() {
    let number = format!("ce {:08x}", 271_828_182);
    let in_place_of_pin = [
        number.as_str(),
        "81 a9 '271828182' 80",
        "91 a9 '271828182'",
        "a9 '271828182' a9 '271828182'",
        "aa '271828182' ff",
    ];
    for pin in in_place_of_pin {
        let request = format!("81 a7 'OpenKey' 82 a3 'uri' a0 a3 'pin' {pin}");
        let error = body::<Request>(&request).unwrap_err();
        for text in [format!("{error}"), format!("{error:?}")] {
            assert!(!text.contains("271828182"), "{pin}: {text}");
        }
    }
    // Fields that are mixed up: the PIN where the URI, the scheme or the whole message should be.
    for request in [
        "81 a7 'OpenKey' a9 '271828182'".to_owned(),
        format!("81 a7 'OpenKey' 81 a3 'uri' {number}"),
        format!("81 a4 'Sign' 84 a3 'uri' a0 a6 'scheme' {number}"),
        "81 a4 'Sign' 84 a3 'uri' a0 a6 'scheme' a9 '271828182'".to_owned(),
    ] {
        let error = body::<Request>(&request).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("271828182"),
            "{request}: {error:?}"
        );
    }
}

#[test]
fn no_debug_output_shows_a_pin_or_a_message_to_sign() {
    for (message, _) in requests_and_bytes() {
        let text = format!("{message:?}");
        assert!(!text.contains("1234"), "{text}");
        assert!(!text.contains("97, 98, 99"), "{text}");
    }
}

/// Every request, with all optional fields and with none.
fn requests_and_bytes() -> Vec<(Request, Vec<u8>)> {
    let uri = || "pkcs11:token=t".to_owned();
    vec![
        (Request::Ping(Ping {}), wire("00 00 00 07  81 a4 'Ping' 80")),
        (
            Request::Status(GetStatus {}),
            wire("00 00 00 09  81 a6 'Status' 80"),
        ),
        (
            Request::OpenKey(OpenKey {
                uri: uri(),
                pin: None,
                spki: None,
            }),
            wire("00 00 00 1d  81 a7 'OpenKey' 81 a3 'uri' ae 'pkcs11:token=t'"),
        ),
        (
            Request::OpenKey(OpenKey {
                uri: uri(),
                pin: Some(Pin::from("1234")),
                spki: Some(ByteBuf::from([0x30, 0x00])),
            }),
            wire(
                "00 00 00 2f  81 a7 'OpenKey' 83 a3 'uri' ae 'pkcs11:token=t'
                 a3 'pin' a4 '1234' a4 'spki' c4 02 30 00",
            ),
        ),
        (
            Request::Sign(Sign {
                uri: uri(),
                pin: None,
                scheme: 0x0403,
                message: ByteBuf::from(b"abc"),
                identity: identity(),
            }),
            wire(&format!(
                "00 00 00 5c  81 a4 'Sign' 84 a3 'uri' ae 'pkcs11:token=t' a6 'scheme' cd 04 03
                 a7 'message' c4 03 'abc' a8 'identity' c4 20 {IDENTITY}"
            )),
        ),
        (
            Request::Sign(Sign {
                uri: uri(),
                pin: Some(Pin::from("1234")),
                scheme: 0x0807,
                message: ByteBuf::new(),
                identity: identity(),
            }),
            wire(&format!(
                "00 00 00 62  81 a4 'Sign' 85 a3 'uri' ae 'pkcs11:token=t' a3 'pin' a4 '1234'
                 a6 'scheme' cd 08 07 a7 'message' c4 00 a8 'identity' c4 20 {IDENTITY}"
            )),
        ),
    ]
}

/// Every response, with all optional fields and with none.
fn responses_and_bytes() -> Vec<(Response, Vec<u8>)> {
    vec![
        (
            Response::Pong(Pong {
                server: "tedge-p11-server 0.1.0".to_owned(),
                protocol: 1,
            }),
            wire(
                "00 00 00 2f  81 a4 'Pong' 82 a6 'server' b6 'tedge-p11-server 0.1.0'
                 a8 'protocol' 01",
            ),
        ),
        (
            Response::Status(Status {
                server: "s 1".to_owned(),
                available: true,
                trouble: None,
            }),
            wire("00 00 00 1f  81 a6 'Status' 82 a6 'server' a3 's 1' a9 'available' c3"),
        ),
        (
            Response::Status(Status {
                server: "s 1".to_owned(),
                available: false,
                trouble: Some("C_Initialize".to_owned()),
            }),
            wire(
                "00 00 00 34  81 a6 'Status' 83 a6 'server' a3 's 1' a9 'available' c2
                 a7 'trouble' ac 'C_Initialize'",
            ),
        ),
        (
            Response::Key(Key {
                uri: "pkcs11:token=t;id=%01".to_owned(),
                key_type: KeyType::Ed25519,
                bits: 255,
                schemes: vec![0x0807],
                spki: ByteBuf::from(wire(SPKI)),
                identity: identity(),
            }),
            wire(&format!(
                "00 00 00 a2  81 a3 'Key' 86 a3 'uri' b5 'pkcs11:token=t;id=%01'
                 a8 'key_type' a7 'Ed25519' a4 'bits' cc ff a7 'schemes' 91 cd 08 07
                 a4 'spki' c4 2c {SPKI} a8 'identity' c4 20 {IDENTITY}"
            )),
        ),
        (
            Response::Signature(Signature {
                signature: ByteBuf::from([0x30, 0x06]),
            }),
            wire("00 00 00 1a  81 a9 'Signature' 81 a9 'signature' c4 02 30 06"),
        ),
        (
            Response::Error(Failure::new(ErrorCode::KeyNotFound, "no key")),
            wire(
                "00 00 00 28  81 a5 'Error' 82 a4 'code' ab 'KeyNotFound' a7 'message' a6 'no key'",
            ),
        ),
        (
            Response::Error(Failure {
                code: ErrorCode::Module,
                message: "it failed".to_owned(),
                function: Some("C_Sign".to_owned()),
                ckr: Some("CKR_DEVICE_REMOVED".to_owned()),
            }),
            wire(
                "00 00 00 4d  81 a5 'Error' 84 a4 'code' a6 'Module' a7 'message' a9 'it failed'
                 a8 'function' a6 'C_Sign' a3 'ckr' b2 'CKR_DEVICE_REMOVED'",
            ),
        ),
    ]
}

fn assert_golden<M: Message + PartialEq + std::fmt::Debug>(message: &M, bytes: &[u8]) {
    let encoded = frame::encode(message).unwrap();
    assert_eq!(encoded.as_slice(), bytes, "encoding {message:?}");
    let body = frame::read(&mut &bytes[..]).unwrap().unwrap();
    assert_eq!(&frame::decode::<M>(&body).unwrap(), message);
    assert!(M::NAMES.contains(&message.name()), "{message:?}");
}

fn identity() -> Identity {
    let identity = Identity::of(&wire(SPKI)).unwrap();
    assert_eq!(identity.to_string(), IDENTITY);
    identity
}

fn body<M: Message>(notation: &str) -> Result<M, Error> {
    frame::decode(&wire(notation))
}

fn framed(notation: &str) -> Vec<u8> {
    let body = wire(notation);
    let length = u32::try_from(body.len()).unwrap();
    [length.to_be_bytes().as_slice(), &body].concat()
}

/// The bytes of the notation: hex outside of quotes, text inside.
fn wire(notation: &str) -> Vec<u8> {
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
