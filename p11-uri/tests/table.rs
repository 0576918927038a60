//! URIs, half of them malformed, each with all that it says or with what is wrong with it and where.

use p11_uri::{ErrorKind, MAX_LEN, Uri};
use secrecy::ExposeSecret;

/// A URI and every attribute that it must be found to say, `id` and vendor values in hexadecimal.
type Good = (&'static str, &'static [(&'static str, &'static str)]);

const GOOD: &[Good] = &[
    // Scheme and nothing else.
    ("pkcs11:", &[]),
    ("pkcs11:?", &[]),
    ("PKCS11:", &[]),
    ("Pkcs11:token=a", &[("token", "a")]),
    // Each path attribute.
    ("pkcs11:token=my-token", &[("token", "my-token")]),
    (
        "pkcs11:manufacturer=Snake%20Oil,%20Inc.",
        &[("manufacturer", "Snake Oil, Inc.")],
    ),
    (
        "pkcs11:serial=83f9cf49039c051a",
        &[("serial", "83f9cf49039c051a")],
    ),
    ("pkcs11:model=SoftHSM%20v2", &[("model", "SoftHSM v2")]),
    (
        "pkcs11:library-manufacturer=SoftHSM",
        &[("library-manufacturer", "SoftHSM")],
    ),
    (
        "pkcs11:library-description=Soft%20Token%20Library",
        &[("library-description", "Soft Token Library")],
    ),
    ("pkcs11:library-version=3", &[("library-version", "3.0")]),
    ("pkcs11:library-version=2.6", &[("library-version", "2.6")]),
    ("pkcs11:library-version=0.0", &[("library-version", "0.0")]),
    (
        "pkcs11:library-version=255.255",
        &[("library-version", "255.255")],
    ),
    (
        "pkcs11:library-version=02.06",
        &[("library-version", "2.6")],
    ),
    ("pkcs11:object=my-key", &[("object", "my-key")]),
    ("pkcs11:type=cert", &[("type", "cert")]),
    ("pkcs11:type=data", &[("type", "data")]),
    ("pkcs11:type=private", &[("type", "private")]),
    ("pkcs11:type=public", &[("type", "public")]),
    ("pkcs11:type=secret-key", &[("type", "secret-key")]),
    ("pkcs11:type=%70rivate", &[("type", "private")]),
    ("pkcs11:id=%01", &[("id", "01")]),
    ("pkcs11:id=%00%ff%3B%FF", &[("id", "00ff3bff")]),
    ("pkcs11:id=A%42c", &[("id", "414263")]),
    ("pkcs11:slot-id=0", &[("slot-id", "0")]),
    ("pkcs11:slot-id=007", &[("slot-id", "7")]),
    (
        "pkcs11:slot-id=18446744073709551615",
        &[("slot-id", "18446744073709551615")],
    ),
    (
        "pkcs11:slot-description=Slot%20%231",
        &[("slot-description", "Slot #1")],
    ),
    ("pkcs11:slot-manufacturer=x", &[("slot-manufacturer", "x")]),
    // Empty values mean an empty field.
    ("pkcs11:token=", &[("token", "")]),
    ("pkcs11:object=;id=", &[("object", ""), ("id", "")]),
    // Every raw character that a path value may hold.
    (
        "pkcs11:token=-._~:[]@!$'()*+,=&",
        &[("token", "-._~:[]@!$'()*+,=&")],
    ),
    ("pkcs11:object=[x]", &[("object", "[x]")]),
    ("pkcs11:object=a=b=c", &[("object", "a=b=c")]),
    ("pkcs11:object=a+b", &[("object", "a+b")]),
    (
        "pkcs11:object=my-pin-value=5",
        &[("object", "my-pin-value=5")],
    ),
    // Decoding.
    ("pkcs11:token=caf%C3%A9", &[("token", "café")]),
    ("pkcs11:token=caf%c3%a9", &[("token", "café")]),
    ("pkcs11:token=100%25", &[("token", "100%")]),
    ("pkcs11:token=%2541", &[("token", "%41")]),
    ("pkcs11:token=a%3Bb%3Fc%23d%2Fe", &[("token", "a;b?c#d/e")]),
    ("pkcs11:token=%00%0A", &[("token", "\0\n")]),
    (
        "pkcs11:token=%26pin-value%3Dx",
        &[("token", "&pin-value=x")],
    ),
    // Names that RFC 7512 does not define, and names are told apart by case.
    ("pkcs11:x-vendor=%FF", &[("path x-vendor", "ff")]),
    (
        "pkcs11:Token=a;token=b",
        &[("path Token", "61"), ("token", "b")],
    ),
    ("pkcs11:a_1=", &[("path a_1", "")]),
    (
        "pkcs11:objecttype=private",
        &[("path objecttype", "70726976617465")],
    ),
    // Several, in any order.
    (
        "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=83f9cf49039c051a;token=my-token;id=%01;object=my-key;type=private",
        &[
            ("model", "SoftHSM v2"),
            ("manufacturer", "SoftHSM project"),
            ("serial", "83f9cf49039c051a"),
            ("token", "my-token"),
            ("id", "01"),
            ("object", "my-key"),
            ("type", "private"),
        ],
    ),
    (
        "pkcs11:type=cert;object=b;token=a",
        &[("token", "a"), ("object", "b"), ("type", "cert")],
    ),
    (
        "pkcs11:slot-id=1;library-version=1.2",
        &[("library-version", "1.2"), ("slot-id", "1")],
    ),
    // Query attributes.
    ("pkcs11:?pin-value=1234", &[("pin-value", "1234")]),
    ("pkcs11:?pin-value=", &[("pin-value", "")]),
    (
        "pkcs11:?pin-value=%26%3D%20%C3%A9+",
        &[("pin-value", "&= é+")],
    ),
    (
        "pkcs11:?pin-source=file:/etc/pin",
        &[("pin-source", "file:/etc/pin")],
    ),
    (
        "pkcs11:?pin-source=|/bin/show-pin",
        &[("pin-source", "|/bin/show-pin")],
    ),
    (
        "pkcs11:?module-name=softhsm2",
        &[("module-name", "softhsm2")],
    ),
    (
        "pkcs11:?module-path=/usr/lib/libsofthsm2.so",
        &[("module-path", "/usr/lib/libsofthsm2.so")],
    ),
    (
        "pkcs11:?module-path=/a%26b/c%20d",
        &[("module-path", "/a&b/c d")],
    ),
    (
        "pkcs11:?module-name=-._~:[]@!$'()*+,=/?|",
        &[("module-name", "-._~:[]@!$'()*+,=/?|")],
    ),
    (
        "pkcs11:token=t?module-path=/m&pin-value=p",
        &[("token", "t"), ("pin-value", "p"), ("module-path", "/m")],
    ),
    (
        "pkcs11:object=o?pin-source=/p",
        &[("object", "o"), ("pin-source", "/p")],
    ),
    ("pkcs11:?x=1&y=2", &[("query x", "31"), ("query y", "32")]),
    ("pkcs11:?x=2&x=1", &[("query x", "32"), ("query x", "31")]),
    ("pkcs11:?x=%FF", &[("query x", "ff")]),
    ("pkcs11:x=1?x=2", &[("path x", "31"), ("query x", "32")]),
];

/// A text, what is wrong with it, and at which byte.
fn bad() -> Vec<(&'static str, ErrorKind, usize)> {
    use ErrorKind::*;
    let duplicate = |name: &str| Duplicate(name.to_owned());
    let misplaced = |name: &str| Misplaced(name.to_owned());
    let not_utf8 = |name: &str| NotUtf8(name.to_owned());
    vec![
        // Scheme.
        ("", Scheme, 0),
        ("zz.uri", Scheme, 0),
        ("pkcs11", Scheme, 0),
        ("pkcs12:token=a", Scheme, 0),
        ("pkcs1:token=a", Scheme, 0),
        (":token=a", Scheme, 0),
        ("token=a;object=b", Scheme, 0),
        (" pkcs11:token=a", Scheme, 0),
        ("pkcs11%3Atoken=a", Scheme, 0),
        ("https://example.org/", Scheme, 0),
        ("pkcs1é:token=a", Scheme, 0),
        // Authority and fragment.
        ("pkcs11://token=a", Authority, 7),
        ("pkcs11://host/token=a", Authority, 7),
        ("pkcs11://", Authority, 7),
        ("pkcs11:///token=a", Authority, 7),
        ("pkcs11://host name", Authority, 7),
        ("pkcs11:#", Fragment, 7),
        ("pkcs11:token=a#b", Fragment, 14),
        ("pkcs11:token=a?pin-value=1#2", Fragment, 26),
        ("pkcs11:token=a#b#c", Fragment, 14),
        // Characters.
        ("pkcs11:token=my token", Character, 15),
        ("pkcs11:token=a ", Character, 14),
        ("pkcs11:token=a;object=b c", Character, 23),
        ("pkcs11:token=a?x=1&y=2 3", Character, 22),
        ("pkcs11:token=a\n", Character, 14),
        ("pkcs11:token=caf\u{e9}", Character, 16),
        ("pkcs11:token=a\"b", Character, 14),
        ("pkcs11:token=<a>", Character, 13),
        ("pkcs11:token=a\\b", Character, 14),
        ("pkcs11:token=a^b", Character, 14),
        ("pkcs11:token=a`b", Character, 14),
        ("pkcs11:token={a}", Character, 13),
        ("pkcs11:token=a\0", Character, 14),
        ("pkcs11:token=a/b", Character, 14),
        ("pkcs11:token=a|b", Character, 14),
        ("pkcs11:a|b=c;object=d e", Character, 8),
        ("pkcs11:?module-path=/a;b", Character, 22),
        ("pkcs11:token=a?pin-value=1 2", Character, 26),
        ("pkcs11:token=a?pin-value=<REDACTED>", Character, 25),
        // Percent-encoding.
        ("pkcs11:token=%", PercentEncoding, 13),
        ("pkcs11:token=a%2", PercentEncoding, 14),
        ("pkcs11:token=%zz", PercentEncoding, 13),
        ("pkcs11:token=%+1", PercentEncoding, 13),
        ("pkcs11:token=%4\u{e9}", PercentEncoding, 13),
        ("pkcs11:id=%01%0", PercentEncoding, 13),
        ("pkcs11:id=%[]", PercentEncoding, 10),
        ("pkcs11:?pin-value=10%", PercentEncoding, 20),
        // Attributes without name, `=` or anything.
        ("pkcs11:token", NoEquals, 7),
        ("pkcs11:token=a;object", NoEquals, 15),
        ("pkcs11:token=a;", NoEquals, 15),
        ("pkcs11:;token=a", NoEquals, 7),
        ("pkcs11:token=a;;object=b", NoEquals, 15),
        ("pkcs11:?pin-value", NoEquals, 8),
        ("pkcs11:token=a?pin-value=12&34", NoEquals, 28),
        ("pkcs11:?&", NoEquals, 8),
        ("pkcs11:=a", Name, 7),
        ("pkcs11:a.b=c", Name, 7),
        ("pkcs11:tok%65n=c", Name, 7),
        ("pkcs11:/token=c", Name, 7),
        ("pkcs11:?=a", Name, 8),
        // The same twice.
        ("pkcs11:token=a;token=a", duplicate("token"), 15),
        ("pkcs11:type=public;type=private", duplicate("type"), 19),
        ("pkcs11:id=;id=", duplicate("id"), 11),
        (
            "pkcs11:slot-id=1;object=x;slot-id=1",
            duplicate("slot-id"),
            26,
        ),
        ("pkcs11:x=1;x=2", duplicate("x"), 11),
        (
            "pkcs11:?pin-value=1&pin-value=1",
            duplicate("pin-value"),
            20,
        ),
        (
            "pkcs11:?module-name=a&module-name=b",
            duplicate("module-name"),
            22,
        ),
        ("pkcs11:?pin-source=/p&pin-value=1", TwoPins, 22),
        ("pkcs11:?pin-value=1&x=y&pin-source=/p", TwoPins, 24),
        // Values.
        ("pkcs11:type=", Type, 7),
        ("pkcs11:type=key", Type, 7),
        ("pkcs11:token=a;type=Private", Type, 15),
        ("pkcs11:type=secretkey", Type, 7),
        ("pkcs11:slot-id=", SlotId, 7),
        ("pkcs11:slot-id=a", SlotId, 7),
        ("pkcs11:slot-id=-1", SlotId, 7),
        ("pkcs11:slot-id=+1", SlotId, 7),
        ("pkcs11:slot-id=0x10", SlotId, 7),
        ("pkcs11:slot-id=18446744073709551616", SlotId, 7),
        ("pkcs11:library-version=", LibraryVersion, 7),
        ("pkcs11:library-version=1.", LibraryVersion, 7),
        ("pkcs11:library-version=.1", LibraryVersion, 7),
        ("pkcs11:library-version=1.2.3", LibraryVersion, 7),
        ("pkcs11:library-version=256", LibraryVersion, 7),
        ("pkcs11:library-version=1.256", LibraryVersion, 7),
        ("pkcs11:library-version=v1", LibraryVersion, 7),
        ("pkcs11:token=%FF", not_utf8("token"), 7),
        ("pkcs11:id=%FF;object=%C3", not_utf8("object"), 14),
        ("pkcs11:?pin-value=%FF", not_utf8("pin-value"), 8),
        // The wrong side of the `?`.
        ("pkcs11:token=a;pin-value=1234", misplaced("pin-value"), 15),
        ("pkcs11:token=a&pin-value=1234", misplaced("pin-value"), 15),
        ("pkcs11:pin-source=%2Fp", misplaced("pin-source"), 7),
        ("pkcs11:module-name=a", misplaced("module-name"), 7),
        ("pkcs11:module-path=a", misplaced("module-path"), 7),
        (
            "pkcs11:?module-name=a?pin-value=1234",
            misplaced("pin-value"),
            22,
        ),
        (
            "pkcs11:?library-description=a",
            misplaced("library-description"),
            8,
        ),
        (
            "pkcs11:?library-manufacturer=a",
            misplaced("library-manufacturer"),
            8,
        ),
        ("pkcs11:?library-version=1", misplaced("library-version"), 8),
        (
            "pkcs11:?slot-description=a",
            misplaced("slot-description"),
            8,
        ),
        (
            "pkcs11:?slot-manufacturer=a",
            misplaced("slot-manufacturer"),
            8,
        ),
        ("pkcs11:?slot-id=1", misplaced("slot-id"), 8),
        ("pkcs11:?model=a", misplaced("model"), 8),
        ("pkcs11:?manufacturer=a", misplaced("manufacturer"), 8),
        ("pkcs11:?serial=a", misplaced("serial"), 8),
        ("pkcs11:?pin-value=1&token=a", misplaced("token"), 20),
        ("pkcs11:?id=%01", misplaced("id"), 8),
        ("pkcs11:?object=a", misplaced("object"), 8),
        ("pkcs11:object=a?type=private", misplaced("type"), 16),
    ]
}

#[test]
fn good_uris_say_what_they_say() {
    for (text, expected) in GOOD {
        let uri = Uri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let mut said = everything_said(&uri);
        // The order of path attributes says nothing; repeated query attributes keep theirs.
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        said.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(said, expected, "{text}");
    }
}

#[test]
fn bad_uris_are_refused_with_place_and_reason() {
    for (text, kind, position) in bad() {
        let error = Uri::parse(text).expect_err(text);
        assert_eq!(
            (error.kind(), error.position()),
            (&kind, Some(position)),
            "{text}"
        );
        assert!(text.is_char_boundary(position), "{text}");
        let place = format!("at byte {position}");
        assert!(
            position == 0 || error.to_string().contains(&place),
            "{text}: {error}"
        );
    }
}

#[test]
fn all_ways_to_parse_are_one() {
    let good = "pkcs11:token=a";
    assert_eq!(good.parse(), Uri::parse(good));
    assert_eq!(Uri::try_from(good), Uri::parse(good));
    let bad = "pkcs11:token";
    assert_eq!(bad.parse::<Uri>(), Uri::parse(bad));
    assert_eq!(Uri::try_from(bad), Uri::parse(bad));
}

#[test]
fn the_table_is_as_large_as_promised() {
    assert!(
        GOOD.len() >= 60 && bad().len() >= 60,
        "{} good, {} bad",
        GOOD.len(),
        bad().len()
    );
}

#[test]
fn longest_text_is_16_kib() {
    let longest = format!("pkcs11:token={}", "a".repeat(MAX_LEN - 13));
    assert_eq!(longest.len(), 16 * 1024);
    assert!(Uri::parse(&longest).is_ok());
    assert_eq!(
        Uri::parse(&(longest + "a")),
        Err(ErrorKind::TooLong(MAX_LEN + 1).into())
    );
    // Not looked at: the length is the reason, though there is another.
    assert_eq!(
        Uri::parse(&" ".repeat(1 << 20)),
        Err(ErrorKind::TooLong(1 << 20).into())
    );
}

#[test]
fn no_error_repeats_a_pin() {
    let pin = "73ab";
    for text in [
        "pkcs11:?pin-value=73ab%",
        "pkcs11:?pin-value=73ab 73ab",
        "pkcs11:?pin-value=73ab&73ab",
        "pkcs11:?pin-value=73ab;73ab=1",
        "pkcs11:?pin-value=73ab%FF",
        "pkcs11:?pin-value=73ab&pin-value=73ab",
        "pkcs11:?pin-value=73ab&pin-source=/etc/73ab",
        "pkcs11:?pin-value=73ab#73ab",
        "pkcs11:?pin-value=73ab&=73ab",
        "pkcs11:token=a;pin-value=73ab",
        "pkcs11:token=a&pin-value=73ab",
        "73ab",
    ] {
        let error = Uri::parse(text).expect_err(text);
        assert!(
            !format!("{error} {error:?}").contains(pin),
            "{text}: {error}"
        );
    }
}

fn everything_said(uri: &Uri) -> Vec<(String, String)> {
    let version = uri
        .library_version()
        .map(|(major, minor)| format!("{major}.{minor}"));
    let slot_id = uri.slot_id().map(|id| id.to_string());
    let id = uri.id().map(hex);
    let known = [
        ("token", uri.token()),
        ("manufacturer", uri.manufacturer()),
        ("serial", uri.serial()),
        ("model", uri.model()),
        ("library-manufacturer", uri.library_manufacturer()),
        ("library-description", uri.library_description()),
        ("library-version", version.as_deref()),
        ("slot-description", uri.slot_description()),
        ("slot-manufacturer", uri.slot_manufacturer()),
        ("slot-id", slot_id.as_deref()),
        ("id", id.as_deref()),
        ("object", uri.object()),
        ("type", uri.object_type().map(|known| known.as_str())),
        ("pin-source", uri.pin_source()),
        ("pin-value", uri.pin_value().map(|pin| pin.expose_secret())),
        ("module-name", uri.module_name()),
        ("module-path", uri.module_path()),
    ];
    let known = known
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    let path = uri
        .vendor_path()
        .map(|(name, value)| (format!("path {name}"), hex(value)));
    let query = uri
        .vendor_query()
        .map(|(name, value)| (format!("query {name}"), hex(value)));
    known.chain(path).chain(query).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
