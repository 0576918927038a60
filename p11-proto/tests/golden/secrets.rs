//! PINs and messages to sign, which no error and no `Debug` shows.

use p11_proto::Request;

use crate::all_requests;
use crate::notation::body;

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
        assert_nothing_quoted(&format!("81 a7 'OpenKey' 82 a3 'uri' a0 a3 'pin' {pin}"));
        assert_nothing_quoted(&format!("81 a9 'ChangePin' 81 a7 'new_pin' {pin}"));
    }
    // Fields that are mixed up: the PIN where something else should be.
    for request in [
        "81 a7 'OpenKey' a9 '271828182'".to_owned(),
        format!("81 a7 'OpenKey' 81 a3 'uri' {number}"),
        format!("81 a4 'Sign' 84 a3 'uri' a0 a6 'scheme' {number}"),
        "81 a4 'Sign' 84 a3 'uri' a0 a6 'scheme' a9 '271828182'".to_owned(),
        "81 a9 'ChangePin' 82 a7 'new_pin' a1 '1' a5 'reset' a9 '271828182'".to_owned(),
        "81 a9 'CreateKey' 82 a3 'uri' a0 a3 'key' a9 '271828182'".to_owned(),
        "81 a9 'CreateKey' 82 a3 'uri' a0 a3 'key' 81 a8 'key_type' 81 a9 '271828182' c0"
            .to_owned(),
        "81 a9 'CreateKey' 82 a3 'uri' a0 a3 'key' 81 a8 'key_type' 81 a9 '271828182' 00"
            .to_owned(),
        // The names of fields.
        format!("81 a7 'OpenKey' 81 {number} a0"),
        format!("81 a7 'OpenKey' 81 d2 {:08x} a0", -271_828_182),
        "81 a7 'OpenKey' 81 a9 '271828182' a0".to_owned(),
    ] {
        assert_nothing_quoted(&request);
    }
}

fn assert_nothing_quoted(notation: &str) {
    let error = body::<Request>(notation).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("271828182"), "{notation}: {text}");
}

#[test]
fn no_debug_output_shows_a_pin_or_a_message_to_sign() {
    let mut with_pin = 0;
    for (message, notation) in all_requests() {
        with_pin += usize::from(notation.contains("1234"));
        let text = format!("{message:?}");
        assert!(!text.contains("1234"), "{text}");
        assert!(!text.contains("97, 98, 99"), "{text}");
    }
    assert!(with_pin >= 10, "there are PINs, in fields and in URIs");
}
