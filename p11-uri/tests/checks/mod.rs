//! What must hold for any input: the bodies of the fuzz targets, called by `corpus.rs` on stable too.

use p11_uri::{ErrorKind, MAX_LEN, ObjectInfo, ObjectType, TokenInfo, Uri, redact};
use secrecy::ExposeSecret;

/// Any text is refused at a place of its own, or is read, printed and read alike.
pub fn parse(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let shown = redact(text);
    assert!(!shown.contains(char::is_control) && shown.len() <= 256);
    let uri = match Uri::parse(text) {
        Ok(uri) => uri,
        Err(error) => return assert!(error.position().is_none_or(|at| text.is_char_boundary(at))),
    };
    same_when_printed(&uri);
    let _ = (uri.pin_source_path(), uri.require_request_form());
    let bare = uri.without_query();
    same_when_printed(&bare);
    let scoped = uri.apply_scope(&bare);
    assert!(scoped.uri == uri && scoped.replaced.is_empty());
    if uri.pin_value().is_some() {
        assert!(Uri::parse(&uri.to_string()).is_err() && Uri::parse(&shown).is_err());
    }
}

/// The URI of any token and object is read alike and means them.
pub fn roundtrip(input: &[u8]) {
    let mut fields = input.split(|byte| *byte == b'\n');
    let mut bytes = || fields.next().unwrap_or_default();
    let id = bytes().to_vec();
    let mut text = || String::from_utf8_lossy(bytes()).into_owned();
    let mut token = TokenInfo::default();
    token.label = text();
    token.manufacturer = text();
    token.serial = text();
    token.model = text();
    token.slot_id = input
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    let types = [
        ObjectType::Cert,
        ObjectType::Data,
        ObjectType::Private,
        ObjectType::Public,
        ObjectType::SecretKey,
    ];
    let object_type = types[input.len() % types.len()];
    let object = ObjectInfo::new(object_type, text(), id);

    let uri = Uri::of_object(&token, &object);
    same_when_printed(&uri);
    same_when_printed(&Uri::of_slot(&token));
    assert!(uri.matches_token(&token) && uri.matches_object(&object));
    assert!(
        Uri::of_token(&token).matches_token(&token) && Uri::of_slot(&token).matches_token(&token)
    );
}

fn same_when_printed(uri: &Uri) {
    let printed = uri.to_string_with_pin();
    let printed = printed.expose_secret();
    match Uri::parse(printed) {
        Ok(again) => assert!(again == *uri),
        // Percent-encoding may make three bytes of one.
        Err(error) => {
            let length = printed.len();
            assert!(
                length > MAX_LEN && *error.kind() == ErrorKind::TooLong(length),
                "{error}"
            );
        }
    }
}

/// A PIN that no text has by itself.
const PLANTED: &str = "7391826450";

/// What may stand before a PIN, so that anybody would take it for one.
const SPELLINGS: [&str; 16] = [
    "?",
    "?pin-value=",
    "&pin-value=",
    ";PIN-VALUE=",
    ";pin=",
    "%3Fpin-value%3D",
    "%253Fpin-value%253D",
    "%25253f%2570in-value%25253d",
    "%26so-pin=",
    "%70%69%6E%3D",
    ";x-user.pin.code: ",
    "#pin=",
    "/PiN-VaLuE%3d",
    "%3Bpinvalue=",
    "?x=y&sopin%3a",
    " --pin=",
];

/// A PIN that is planted somewhere in a text is not shown: the first byte says in which spelling, the second in
/// how many parts of the rest before it.
pub fn planted(input: &[u8]) {
    let [spelling, at, rest @ ..] = input else {
        return;
    };
    let rest = String::from_utf8_lossy(rest);
    let spelling = SPELLINGS[usize::from(*spelling) % SPELLINGS.len()];
    let at = usize::from(*at).min(rest.len());
    let Some((before, after)) = rest.split_at_checked(at) else {
        return;
    };
    if rest.contains(PLANTED) {
        return;
    }
    for text in [
        format!("{before}{spelling}{PLANTED}{after}"),
        format!("pkcs11:{before}{spelling}{PLANTED}{after}"),
    ] {
        let shown = redact(&text);
        assert!(!shown.contains(PLANTED), "{text:?}: {shown:?}");
        if let Ok(uri) = Uri::parse(&text) {
            let shown = format!("{} {uri:?}", uri.shown());
            assert!(!shown.contains(PLANTED), "{text:?}: {shown}");
        }
    }
}
