//! What is printed: the form, that it parses back, and that no PIN and no trick is in it.

#![allow(clippy::panic)] // A helper that fails fails the test.

use p11_uri::{ObjectInfo, ObjectType, TokenInfo, Uri, redact};
use proptest::prelude::*;
use secrecy::ExposeSecret;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

const WHOLE: &str = "pkcs11:library-description=a%20b;library-manufacturer=c;library-version=2.6;slot-description=d;slot-manufacturer=e;model=f;manufacturer=g;serial=h;token=i%2F%7E;slot-id=3;id=%01%41;object=j;type=private;x-k=l?pin-value=%26&module-name=m&module-path=/n/o%20p&x-q=r&x-q=s";

#[test]
fn attributes_are_printed_in_the_order_of_p11tool() {
    assert_eq!(whole(&uri(WHOLE)), WHOLE);
    let shuffled = uri(
        "pkcs11:x-k=l;type=private;object=j;id=%01A;token=%69%2f~;serial=h;manufacturer=g;model=f;slot-id=03;slot-manufacturer=e;slot-description=d;library-version=2.6;library-manufacturer=c;library-description=a%20b?x-q=r&module-path=%2Fn%2fo%20p&x-q=s&module-name=m&pin-value=%26",
    );
    assert_eq!(whole(&shuffled), WHOLE);
    assert_eq!(shuffled, uri(WHOLE));
}

#[test]
fn a_uri_of_nothing_is_the_shortest() {
    assert_eq!(Uri::default().to_string(), "pkcs11:");
    assert_eq!(Uri::default(), uri("pkcs11:?"));
}

#[test]
fn equality_is_of_what_is_said() {
    assert_eq!(
        uri("pkcs11:library-version=3"),
        uri("PKCS11:library-version=3.0")
    );
    assert_eq!(
        uri("pkcs11:token=a;object=b"),
        uri("pkcs11:object=%62;token=a")
    );
    assert_eq!(uri("pkcs11:?x=1&y=2"), uri("pkcs11:?y=2&x=1"));
    for (one, other) in [
        ("pkcs11:token=a", "pkcs11:token=A"),
        ("pkcs11:token=a", "pkcs11:"),
        ("pkcs11:token=", "pkcs11:"),
        ("pkcs11:?pin-value=1", "pkcs11:?pin-value=2"),
        ("pkcs11:?pin-value=1", "pkcs11:"),
        ("pkcs11:?pin-source=/a", "pkcs11:?pin-source=/b"),
        ("pkcs11:?module-name=a", "pkcs11:?module-name=b"),
        ("pkcs11:?module-path=a", "pkcs11:?module-path=b"),
        ("pkcs11:?x=a", "pkcs11:?x=b"),
        ("pkcs11:?x=a&x=b", "pkcs11:?x=b&x=a"),
        ("pkcs11:x=a", "pkcs11:x=b"),
    ] {
        assert_ne!(uri(one), uri(other), "{one} {other}");
    }
}

#[test]
fn uris_are_keys_of_maps_and_their_hash_depends_on_no_pin() {
    let hash = |text| BuildHasherDefault::<DefaultHasher>::default().hash_one(uri(text));
    assert_eq!(hash("pkcs11:token=a;id=%41"), hash("pkcs11:id=A;token=%61"));
    assert_eq!(hash("pkcs11:token=a"), hash("pkcs11:token=a?pin-value=1"));
    assert_ne!(hash("pkcs11:token=a"), hash("pkcs11:token=b"));
}

#[test]
fn tokens_slots_and_objects_are_named_as_p11tool_names_them() {
    let mut token = TokenInfo::default();
    token.label = "my-token".into();
    token.manufacturer = "SoftHSM project".into();
    token.serial = "83f9cf49039c051a".into();
    token.model = "SoftHSM v2".into();
    token.slot_id = 7;
    token.slot_description = "not named".into();
    token.library_version = (2, 6);
    let key = ObjectInfo::new(ObjectType::Private, "my-key", [1, b'A']);
    let of_token = "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=83f9cf49039c051a;token=my-token";
    assert_eq!(Uri::of_token(&token).to_string(), of_token);
    assert_eq!(
        Uri::of_object(&token, &key).to_string(),
        format!("{of_token};id=%01%41;object=my-key;type=private")
    );
    assert_eq!(
        Uri::of_slot(&token).to_string(),
        "pkcs11:model=SoftHSM%20v2;slot-id=7"
    );
}

#[test]
fn what_is_empty_is_left_out_but_for_names_of_which_an_object_has_none() {
    let uri = |label: &str, id: &[u8]| {
        let info = ObjectInfo::new(ObjectType::Cert, label, id);
        Uri::of_object(&TokenInfo::default(), &info)
    };
    assert_eq!(uri("", b"\x01").to_string(), "pkcs11:id=%01;type=cert");
    assert_eq!(uri("a", b"").to_string(), "pkcs11:object=a;type=cert");
    let nameless = uri("", b"");
    assert_eq!(nameless.to_string(), "pkcs11:id=;object=;type=cert");
    assert!(nameless.names_object());
    for (label, id) in [("a", &b""[..]), ("", b"\x01"), ("a", b"\x01")] {
        let other = ObjectInfo::new(ObjectType::Cert, label, id);
        assert!(!nameless.matches_object(&other));
    }
}

#[test]
fn no_pin_is_shown() {
    for text in [
        "pkcs11:token=a?pin-value=7391",
        "pkcs11:token=a?pin-value=%37%33%39%31",
        "pkcs11:token=a?x=y&pin-value=7391",
        "pkcs11:token=a?pin=7391",
        "pkcs11:token=a?PIN-VALUE=7391",
        "pkcs11:token=a?x-so-pin=7391",
        "pkcs11:token=a;pin=7391",
        "pkcs11:token=a;pin_value=7391",
        "pkcs11:pin=7391;token=a",
    ] {
        let uri = uri(text);
        let scoped = uri.apply_scope(&Uri::default());
        for shown in [
            uri.to_string(),
            format!("{uri:?} {uri:#?}"),
            format!("{scoped:?}"),
            redact(text),
            uri.shown(),
        ] {
            assert!(
                !shown.contains("7391") && !shown.contains("%37"),
                "{text}: {shown}"
            );
        }
        for shown in [uri.to_string(), redact(text)] {
            assert!(shown.contains("<REDACTED>"), "{text}: {shown}");
        }
        assert!(whole(&uri).contains("=7391"), "{text}");
        let secret = uri.to_string_with_pin();
        assert!(!format!("{secret:?}").contains("7391"));
    }
}

#[test]
fn what_is_shown_is_never_taken_for_a_pin() {
    let shown = uri("pkcs11:token=a?pin-value=7391").to_string();
    assert_eq!(shown, "pkcs11:token=a?pin-value=<REDACTED>");
    assert!(Uri::parse(&shown).is_err());
}

#[test]
fn a_path_that_holds_no_pin_is_shown() {
    for text in [
        "pkcs11:object=pin;x-mapping=1",
        "pkcs11:spin=1?pin-source=/etc/pin&x-pinning=2",
    ] {
        assert_eq!(uri(text).to_string(), text);
    }
}

#[test]
fn without_query_keeps_the_path_alone() {
    let bare = uri("pkcs11:token=a;x=b?pin-value=1&module-path=/m&y=z").without_query();
    assert_eq!(whole(&bare), "pkcs11:token=a;x=b");
}

#[test]
fn what_may_be_logged_of_a_uri_is_its_path_as_given() {
    for (text, shown) in [
        ("pkcs11:object=[b];token=%61", "pkcs11:object=[b];token=%61"),
        ("pkcs11:object=my-pin;id=%01", "pkcs11:object=my-pin;id=%01"),
        ("pkcs11:?", "pkcs11:?"),
        (
            "pkcs11:token=a?pin-value=1&module-path=/m",
            "pkcs11:token=a?<REDACTED>",
        ),
    ] {
        assert_eq!(redact(text), shown);
    }
}

#[test]
fn no_spelling_of_a_pin_is_logged() {
    let twice = |text: &str| text.replace('%', "%25");
    let once = "pkcs11:token=a%3Fpin-value%3D7391";
    for text in [
        once.to_owned(),
        twice(once),
        twice(&twice(once)),
        "pkcs11%3Atoken%3Da%3Fpin-value%3D7391".into(),
        twice("pkcs11%3Atoken%3Da%3Fpin-value%3D7391"),
        "pkcs11:token=a&PIN-VALUE=7391".into(),
        "pkcs11:token=a%26PIN-VALUE%3D7391".into(),
        "pkcs11:token=a%3B%70%69%6E%2Dvalue%3D7391".into(),
        "pkcs11:token=a?pinvalue=7391".into(),
        "pkcs11:token=a?7391".into(),
        "pkcs11:token=a;pinvalue=7391".into(),
        "pkcs11:token=a;sopin=7391".into(),
        "pkcs11:token=a;x-userPin.Code=7391".into(),
        "pkcs11:token=a;pin-value=12;7391".into(),
        "pkcs11:token=a pin 7391".into(),
        "--pin=7391".into(),
        "pin: 7391".into(),
        "PIN%3a7391".into(),
        format!("pkcs11:token=%{}33Fpin=7391", "25".repeat(60)),
    ] {
        assert!(!redact(&text).contains("7391"), "{}", redact(&text));
        if let Ok(uri) = Uri::parse(&text) {
            assert!(!uri.shown().contains("7391"), "{}", uri.shown());
            assert!(!format!("{uri:?}").contains("7391"), "{uri:?}");
        }
    }
}

#[test]
fn what_may_be_logged_of_another_text_ends_before_any_pin() {
    for (text, shown) in [
        ("zz.uri", "zz.uri"),
        ("", ""),
        ("pkcs11:token=a b;object=c", "pkcs11:token=a b;object=c"),
        (
            "pkcs11:token=a b?pin-value=7391",
            "pkcs11:token=a b?<REDACTED>",
        ),
        ("pkcs11:token=a?", "pkcs11:token=a?"),
        ("pkcs11:?pin-value=73&91", "pkcs11:?<REDACTED>"),
        (
            "pkcs11:token=a;pin-value=7391",
            "pkcs11:token=a;pin-value=<REDACTED>",
        ),
        ("pkcs11:token=a&Pin-Value=7391;", "pkcs11:token=<REDACTED>"),
        ("pkcs11:token=spinning wheel", "pkcs11:token=spinning wheel"),
        (
            "pkcs11:token=a b;é=pin-value",
            "pkcs11:token=a b;<REDACTED>",
        ),
    ] {
        assert_eq!(redact(text), shown, "{text}");
    }
}

#[test]
fn what_may_be_logged_is_one_line_that_drives_no_terminal() {
    let trick = "a\nINFO all is well\r\t\0\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{2028}\u{200b}\u{feff}";
    let shown = redact(trick);
    assert!(
        shown.starts_with(r"a\nINFO all is well\r\t\0\u{1b}[2J\u{7f}\u{9b}31m\u{202e}"),
        "{shown}"
    );
    assert!(shown.is_ascii(), "{shown}");
    // As percent-encoded text it is inert already.
    assert_eq!(redact("pkcs11:token=%0A%1B"), "pkcs11:token=%0A%1B");
}

#[test]
fn what_may_be_logged_is_short() {
    let flood = redact(&"\n".repeat(1 << 20));
    assert!(
        flood.len() <= 256 && flood.ends_with('…'),
        "{} bytes",
        flood.len()
    );
}

proptest! {
    /// Any value, however it is spelled and wherever it stands, is read as that value; what is printed of
    /// the URI is read as an equal URI.
    #[test]
    fn what_is_printed_parses_back(
        path in attributes(&["token", "manufacturer", "serial", "model", "object", "slot-description",
            "slot-manufacturer", "library-description", "library-manufacturer", "x-vendor"]),
        query in attributes(&["pin-value", "module-name", "module-path", "x-vendor"]),
        id in proptest::option::of((proptest::collection::vec(any::<u8>(), 0..20), any::<u64>())),
        slot_id in proptest::option::of(any::<u64>()),
        version in proptest::option::of(any::<(u8, u8)>()),
    ) {
        let mut path_texts: Vec<_> = path.iter().map(|value| value.text(b"-._~:[]@!$'()*+,&")).collect();
        path_texts.extend(id.iter().map(|(bytes, coins)| format!("id={}", spelled(bytes, *coins, b"[]"))));
        path_texts.extend(slot_id.map(|id| format!("slot-id={id}")));
        path_texts.extend(version.map(|(major, minor)| format!("library-version={major}.{minor}")));
        let query_texts: Vec<_> = query.iter().map(|value| value.text(b"-._~:[]@!$'()*+,/?|")).collect();
        let text = format!("pkcs11:{}?{}", path_texts.join(";"), query_texts.join("&"));

        let uri = Uri::parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(uri.token(), value_of(&path, "token"));
        prop_assert_eq!(uri.object(), value_of(&path, "object"));
        prop_assert_eq!(uri.module_path(), value_of(&query, "module-path"));
        prop_assert_eq!(uri.pin_value().map(|pin| pin.expose_secret()), value_of(&query, "pin-value"));
        prop_assert_eq!(uri.id(), id.as_ref().map(|(bytes, _)| bytes.as_slice()));
        prop_assert_eq!(uri.slot_id(), slot_id);
        prop_assert_eq!(uri.library_version(), version);

        prop_assert_eq!(&Uri::parse(&whole(&uri)).unwrap(), &uri);
        let shown = uri.to_string();
        prop_assert!(shown.is_ascii() && !shown.contains(char::is_whitespace));
        match uri.pin_value() {
            Some(_) => prop_assert!(Uri::parse(&shown).is_err()),
            None => prop_assert_eq!(&Uri::parse(&shown).unwrap(), &uri),
        }
        prop_assert_eq!(&Uri::parse(&uri.without_query().to_string()).unwrap(), &uri.without_query());
    }

    #[test]
    fn what_may_be_logged_of_any_text_is_printable(text in any::<String>()) {
        prop_assert!(!redact(&text).contains(char::is_control));
    }
}

#[derive(Debug, Clone)]
struct Attribute {
    name: &'static str,
    value: String,
    coins: u64,
}

impl Attribute {
    fn text(&self, raw: &[u8]) -> String {
        format!(
            "{}={}",
            self.name,
            spelled(self.value.as_bytes(), self.coins, raw)
        )
    }
}

/// Some of the attributes, in any order, with any values.
fn attributes(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Attribute>> {
    let some = proptest::sample::subsequence(names, 0..=names.len()).prop_shuffle();
    some.prop_flat_map(|names| {
        let attribute = |name| {
            (".{0,12}", any::<u64>()).prop_map(move |(value, coins)| Attribute {
                name,
                value,
                coins,
            })
        };
        names.into_iter().map(attribute).collect::<Vec<_>>()
    })
}

/// Percent-encoded where it must be, and elsewhere as the coins fall.
fn spelled(bytes: &[u8], coins: u64, raw: &[u8]) -> String {
    let spell = |(place, byte): (usize, &u8)| {
        let may_be_raw = byte.is_ascii_alphanumeric() || raw.contains(byte);
        match (may_be_raw, coins >> (place % 62) & 3) {
            (true, 0 | 1) => char::from(*byte).to_string(),
            (_, 2) => format!("%{byte:02x}"),
            _ => format!("%{byte:02X}"),
        }
    };
    bytes.iter().enumerate().map(spell).collect()
}

fn value_of<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes
        .iter()
        .find(|attribute| attribute.name == name)
        .map(|attribute| attribute.value.as_str())
}

fn uri(text: &str) -> Uri {
    Uri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn whole(uri: &Uri) -> String {
    uri.to_string_with_pin().expose_secret().to_owned()
}
