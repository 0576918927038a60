//! `Ping`, `Status` and what can be answered to anything: `Error`.

use p11_proto::message::{GetStatus, Ping, Pong, Status};
use p11_proto::{ErrorCode, Failure, Request, Response};

use crate::notation::{assert_golden, body};

pub fn requests() -> Vec<(Request, String)> {
    vec![
        (Request::Ping(Ping::default()), "81 a4 'Ping' 80".to_owned()),
        (
            Request::Status(GetStatus::default()),
            "81 a6 'Status' 80".to_owned(),
        ),
    ]
}

pub fn responses() -> Vec<(Response, String)> {
    vec![
        (
            Response::Pong(Pong::new("tedge-p11-server 0.1.0", 1)),
            "81 a4 'Pong' 82 a6 'server' b6 'tedge-p11-server 0.1.0' a8 'protocol' 01".to_owned(),
        ),
        (
            Response::Status(Status::new("s 1", true)),
            "81 a6 'Status' 82 a6 'server' a3 's 1' a9 'available' c3".to_owned(),
        ),
        (
            Response::Status(Status::new("s 1", false).trouble("C_Initialize".to_owned())),
            "81 a6 'Status' 83 a6 'server' a3 's 1' a9 'available' c2
             a7 'trouble' ac 'C_Initialize'"
                .to_owned(),
        ),
        (
            Response::Error(Failure::new(ErrorCode::KeyNotFound, "no key")),
            "81 a5 'Error' 82 a4 'code' ab 'KeyNotFound' a7 'message' a6 'no key'".to_owned(),
        ),
        (
            Response::Error(
                Failure::new(ErrorCode::Module, "it failed")
                    .function("C_Sign".to_owned())
                    .ckr("CKR_DEVICE_REMOVED".to_owned()),
            ),
            "81 a5 'Error' 84 a4 'code' a6 'Module' a7 'message' a9 'it failed'
             a8 'function' a6 'C_Sign' a3 'ckr' b2 'CKR_DEVICE_REMOVED'"
                .to_owned(),
        ),
    ]
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
        (ErrorCode::Misconfigured, "Misconfigured"),
        (ErrorCode::ModuleUnavailable, "ModuleUnavailable"),
        (ErrorCode::Module, "Module"),
        (ErrorCode::Internal, "Internal"),
        (ErrorCode::Unknown, "Unknown"),
    ];
    for (code, name) in codes {
        let bytes = format!(
            "81 a5 'Error' 82 a4 'code' {:02x} '{name}' a7 'message' a1 '-'",
            0xa0 + name.len()
        );
        assert_golden(&Response::Error(Failure::new(code, "-")), &bytes);
    }
}

#[test]
fn a_code_of_a_newer_peer_is_unknown() {
    let answer = "81 a5 'Error' 82 a4 'code' a8 'TooSunny' a7 'message' a1 '-'";
    assert_eq!(
        body::<Response>(answer).unwrap(),
        Response::Error(Failure::new(ErrorCode::Unknown, "-"))
    );
}
