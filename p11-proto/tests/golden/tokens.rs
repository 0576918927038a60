//! `ListTokens`, `InitToken` and `ChangePin`.

use p11_proto::message::{
    ChangePin, InitToken, ListTokens, PinChanged, PinState, TokenEntry, TokenReady, Tokens,
};
use p11_proto::{Pin, Request, Response, UriText};

use crate::notation::{assert_golden, body};

pub fn requests() -> Vec<(Request, String)> {
    vec![
        (
            Request::ListTokens(ListTokens::default()),
            "81 aa 'ListTokens' 80".to_owned(),
        ),
        (
            Request::InitToken(InitToken::new("t")),
            "81 a9 'InitToken' 81 a5 'label' a1 't'".to_owned(),
        ),
        (
            Request::InitToken(
                InitToken::new("t")
                    .uri(UriText::from("pkcs11:slot-id=3?pin-value=1234"))
                    .so_pin(Pin::from("12345678"))
                    .pin(Pin::from("1234")),
            ),
            "81 a9 'InitToken' 84 a3 'uri' bf 'pkcs11:slot-id=3?pin-value=1234' a5 'label' a1 't'
             a6 'so_pin' a8 '12345678' a3 'pin' a4 '1234'"
                .to_owned(),
        ),
        (
            Request::ChangePin(ChangePin::new("1234")),
            "81 a9 'ChangePin' 82 a7 'new_pin' a4 '1234' a5 'reset' c2".to_owned(),
        ),
        (
            Request::ChangePin(
                ChangePin::new("1234")
                    .uri(UriText::from("pkcs11:token=t?pin-value=1234"))
                    .old_pin(Pin::from("12345"))
                    .so_pin(Pin::from("12345678"))
                    .reset(true),
            ),
            "81 a9 'ChangePin' 85 a3 'uri' bd 'pkcs11:token=t?pin-value=1234'
             a7 'new_pin' a4 '1234' a7 'old_pin' a5 '12345' a6 'so_pin' a8 '12345678'
             a5 'reset' c3"
                .to_owned(),
        ),
    ]
}

pub fn responses() -> Vec<(Response, String)> {
    vec![
        (
            Response::Tokens(Tokens::new(Vec::new()).truncated(true)),
            "81 a6 'Tokens' 82 a6 'tokens' 90 a9 'truncated' c3".to_owned(),
        ),
        (tokens_with(PinState::Ok), bytes_of_tokens_with("a2 'ok'")),
        (
            Response::TokenReady(TokenReady::new("pkcs11:token=t", true)),
            "81 aa 'TokenReady' 82 a3 'uri' ae 'pkcs11:token=t' a7 'created' c3".to_owned(),
        ),
        (
            Response::PinChanged(PinChanged::new("pkcs11:token=t")),
            "81 aa 'PinChanged' 81 a3 'uri' ae 'pkcs11:token=t'".to_owned(),
        ),
        (
            Response::PinChanged(PinChanged::new("pkcs11:token=t").stale("tedge.toml".to_owned())),
            "81 aa 'PinChanged' 82 a3 'uri' ae 'pkcs11:token=t' a5 'stale' aa 'tedge.toml'"
                .to_owned(),
        ),
    ]
}

#[test]
fn pin_states() {
    for (state, name) in [
        (PinState::Ok, "a2 'ok'"),
        (PinState::Low, "a3 'low'"),
        (PinState::FinalTry, "a9 'final-try'"),
        (PinState::Locked, "a6 'locked'"),
        (PinState::Unknown, "a7 'unknown'"),
    ] {
        assert_golden(&tokens_with(state), &bytes_of_tokens_with(name));
    }
}

#[test]
fn a_pin_state_of_a_newer_peer_is_unknown() {
    assert_eq!(
        body::<Response>(&bytes_of_tokens_with("a4 'blue'")).unwrap(),
        tokens_with(PinState::Unknown)
    );
}

#[test]
fn what_a_change_of_pin_and_a_listing_leave_out_is_false() {
    assert!(matches!(
        body("81 a9 'ChangePin' 81 a7 'new_pin' a4 '1234'"),
        Ok(Request::ChangePin(change)) if !change.reset
    ));
    assert!(matches!(
        body("81 a6 'Tokens' 81 a6 'tokens' 90"),
        Ok(Response::Tokens(tokens)) if !tokens.truncated
    ));
}

fn tokens_with(user_pin: PinState) -> Response {
    let token = TokenEntry::new(3, "pkcs11:token=t")
        .label("t")
        .model("m")
        .manufacturer("mf")
        .serial("s")
        .initialized(true)
        .user_pin_set(true)
        .login_required(true)
        .user_pin(user_pin)
        .so_pin(PinState::FinalTry);
    Response::Tokens(Tokens::new(vec![token]))
}

fn bytes_of_tokens_with(user_pin: &str) -> String {
    format!(
        "81 a6 'Tokens' 82 a6 'tokens' 91 8d a4 'slot' 03 a5 'label' a1 't' a5 'model' a1 'm'
         ac 'manufacturer' a2 'mf' a6 'serial' a1 's' a3 'uri' ae 'pkcs11:token=t'
         ab 'initialized' c3 ac 'user_pin_set' c3 ae 'login_required' c3 a7 'pin_pad' c2
         af 'write_protected' c2 a8 'user_pin' {user_pin} a6 'so_pin' a9 'final-try'
         a9 'truncated' c2"
    )
}
