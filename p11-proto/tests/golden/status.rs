//! `Ping`, `Status` and what can be answered to anything: `Error`.

use p11_proto::message::{
    Account, Counters, GetStatus, HungCall, LastError, LoginState, ModuleStatus, PinOwner, Ping,
    Pong, Setting, Source, Status, StatusDetails, TokenStatus,
};
use p11_proto::{ErrorCode, Failure, Request, Response};

use crate::notation::{assert_golden, body};

/// A time of Unix.
const AT: u64 = 0x6929_5680;

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
            Response::Status(whole_status()),
            BYTES_OF_WHOLE_STATUS.to_owned(),
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

/// With all that newer servers tell.
fn whole_status() -> Status {
    let refused = TokenStatus::new("pkcs11:token=a", "a", LoginState::Refused)
        .since(AT)
        .pin_owner(PinOwner::Server)
        .pin_origin("--pin".to_owned())
        .reason("why".to_owned());
    let module = ModuleStatus::new("/m.so")
        .description("Soft".to_owned())
        .manufacturer("S".to_owned())
        .version("2.6".to_owned());
    let error = LastError::new(AT, ErrorCode::Module, "m")
        .function("C_Sign".to_owned())
        .ckr("CKR_DEVICE_ERROR".to_owned());
    let counters = Counters::new(70_000, 1, 2, 3)
        .connections(4)
        .signed_at(AT)
        .signing_us(19_000);
    let uri = Setting::new("uri", Source::File)
        .value("pkcs11:token=a".to_owned())
        .place("/t.toml".to_owned())
        .line(7);
    let details = StatusDetails::new(module, counters)
        .tokens(vec![
            refused,
            TokenStatus::new("pkcs11:token=b", "b", LoginState::NotTried),
        ])
        .hung(vec![
            HungCall::new("C_Sign", 42_u64).token("pkcs11:token=a".to_owned()),
            HungCall::new("C_Finalize", 31_u64),
        ])
        .settings(vec![uri, Setting::new("pin", Source::Credential)])
        .last_error(error);
    Status::new("s 1", false)
        .trouble("hung".to_owned())
        .version("1".to_owned())
        .uptime(3600)
        .account(Account::new(990_u32).user("tedge".to_owned()))
        .allowed(vec!["sign".to_owned(), "list".to_owned()])
        .details(Box::new(details))
}

const BYTES_OF_WHOLE_STATUS: &str = "
    81 a6 'Status' 88 a6 'server' a3 's 1' a9 'available' c2 a7 'trouble' a4 'hung'
    a7 'version' a1 '1' a6 'uptime' cd 0e10
    a7 'account' 82 a3 'uid' cd 03de a4 'user' a5 'tedge'
    a7 'allowed' 92 a4 'sign' a4 'list'
    a7 'details' 86
    a6 'module' 84 a4 'path' a5 '/m.so' ab 'description' a4 'Soft' ac 'manufacturer' a1 'S'
        a7 'version' a3 '2.6'
    a8 'counters' 87 aa 'signatures' ce 00011170 a8 'failures' 01 a6 'logins' 02 a7 'reloads' 03
        ab 'connections' 04 a9 'signed_at' ce 69295680 aa 'signing_us' cd 4a38
    a6 'tokens' 92
        87 a3 'uri' ae 'pkcs11:token=a' a5 'label' a1 'a' a3 'pin' a7 'refused' a5 'since' ce 69295680
            a9 'pin_owner' a6 'server' aa 'pin_origin' a5 '--pin' a6 'reason' a3 'why'
        83 a3 'uri' ae 'pkcs11:token=b' a5 'label' a1 'b' a3 'pin' a9 'not-tried'
    a4 'hung' 92
        83 a8 'function' a6 'C_Sign' a7 'seconds' 2a a5 'token' ae 'pkcs11:token=a'
        82 a8 'function' aa 'C_Finalize' a7 'seconds' 1f
    a8 'settings' 92
        85 a4 'name' a3 'uri' a6 'source' a4 'file' a5 'value' ae 'pkcs11:token=a'
            a5 'place' a7 '/t.toml' a4 'line' 07
        82 a4 'name' a3 'pin' a6 'source' aa 'credential'
    aa 'last_error' 85 a2 'at' ce 69295680 a4 'code' a6 'Module' a7 'message' a1 'm'
        a8 'function' a6 'C_Sign' a3 'ckr' b0 'CKR_DEVICE_ERROR'";

#[test]
fn the_words_of_a_status() {
    for (state, name) in [
        (LoginState::NotNeeded, "aa 'not-needed'"),
        (LoginState::NotTried, "a9 'not-tried'"),
        (LoginState::Accepted, "a8 'accepted'"),
        (LoginState::Refused, "a7 'refused'"),
        (LoginState::Guarded, "a7 'guarded'"),
        (LoginState::Locked, "a6 'locked'"),
        (LoginState::Unknown, "a7 'unknown'"),
    ] {
        let words = [name, "a6 'server'", "a4 'flag'"];
        let status = status_of(state, PinOwner::Server, Source::Flag);
        assert_golden(&status, &bytes_of_words(words));
    }
    for (owner, name) in [
        (PinOwner::Default, "a7 'default'"),
        (PinOwner::Client, "a6 'client'"),
        (PinOwner::PinPad, "a7 'pin-pad'"),
        (PinOwner::Unknown, "a7 'unknown'"),
    ] {
        let words = ["a8 'accepted'", name, "a4 'flag'"];
        let status = status_of(LoginState::Accepted, owner, Source::Flag);
        assert_golden(&status, &bytes_of_words(words));
    }
    for (source, name) in [
        (Source::Variable, "a8 'variable'"),
        (Source::Credential, "aa 'credential'"),
        (Source::File, "a4 'file'"),
        (Source::Uri, "a3 'uri'"),
        (Source::ServiceManager, "af 'service-manager'"),
        (Source::Default, "a7 'default'"),
        (Source::Unknown, "a7 'unknown'"),
    ] {
        let words = ["a8 'accepted'", "a6 'server'", name];
        let status = status_of(LoginState::Accepted, PinOwner::Server, source);
        assert_golden(&status, &bytes_of_words(words));
    }
}

#[test]
fn a_word_of_a_newer_peer_is_unknown() {
    let words = bytes_of_words(["a5 'tired'", "a5 'nurse'", "a5 'cloud'"]);
    assert_eq!(
        body::<Response>(&words).unwrap(),
        status_of(LoginState::Unknown, PinOwner::Unknown, Source::Unknown)
    );
}

fn status_of(state: LoginState, owner: PinOwner, source: Source) -> Response {
    let token = TokenStatus::new("", "", state).pin_owner(owner);
    let details = StatusDetails::new(
        ModuleStatus::new(""),
        Counters::new(0_u64, 0_u64, 0_u64, 0_u64),
    )
    .tokens(vec![token])
    .settings(vec![Setting::new("", source)]);
    Response::Status(Status::new("", true).details(Box::new(details)))
}

fn bytes_of_words([state, owner, source]: [&str; 3]) -> String {
    format!(
        "81 a6 'Status' 83 a6 'server' a0 a9 'available' c3 a7 'details' 85 a6 'module' 81 a4 'path' a0
         a8 'counters' 84 aa 'signatures' 00 a8 'failures' 00 a6 'logins' 00 a7 'reloads' 00
         a6 'tokens' 91 84 a3 'uri' a0 a5 'label' a0 a3 'pin' {state} a9 'pin_owner' {owner}
         a4 'hung' 90 a8 'settings' 91 82 a4 'name' a0 a6 'source' {source}"
    )
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
