//! What a URI means: tokens, objects and keys it matches, the scope it is held to, the file of its PIN.

#![allow(clippy::panic)] // A helper that fails fails the test.

use p11_uri::{ErrorKind, ObjectInfo, ObjectType, TokenInfo, Uri};
use std::path::Path;

#[test]
fn every_token_attribute_counts() {
    let token = token();
    for (matching, other) in [
        ("token=my-token", "token=my-toke"),
        (
            "manufacturer=SoftHSM%20project",
            "manufacturer=softhsm%20project",
        ),
        ("serial=83f9", "serial=83f"),
        ("model=SoftHSM%20v2", "model="),
        ("slot-id=7", "slot-id=8"),
        ("slot-description=SoftHSM%20slot", "slot-description=slot"),
        ("slot-manufacturer=slot%20maker", "slot-manufacturer=x"),
        ("library-manufacturer=SoftHSM", "library-manufacturer=x"),
        ("library-description=a%20library", "library-description=x"),
        ("library-version=2.6", "library-version=2"),
    ] {
        assert!(uri(matching).matches_token(&token), "{matching}");
        assert!(!uri(other).matches_token(&token), "{other}");
        // One that differs is enough.
        assert!(
            !uri(&format!("object=a;{other};id=%01")).matches_token(&token),
            "{other}"
        );
        assert!(uri(matching).names_token(), "{matching}");
        assert!(!uri(matching).names_object(), "{matching}");
    }
}

#[test]
fn library_version_compares_as_a_version() {
    let token = token_but(|token| token.library_version = (3, 0));
    for same in [
        "library-version=3",
        "library-version=3.0",
        "library-version=03.00",
    ] {
        assert!(uri(same).matches_token(&token), "{same}");
    }
    assert!(!uri("library-version=3.1").matches_token(&token));
}

#[test]
fn padding_of_the_info_structures_carries_no_meaning() {
    let padded = token_but(|token| token.label = "my-token   ".into());
    assert!(uri("token=my-token").matches_token(&padded));
    assert!(uri("token=my-token%20").matches_token(&token()));
    assert!(!uri("token=%20my-token").matches_token(&token()));
    let with_nuls = token_but(|token| token.model = "SW   TPM\0\0\0".into());
    assert!(uri("model=SW%20%20%20TPM").matches_token(&with_nuls));
    assert!(uri("model=SW%20%20%20TPM%00").matches_token(&with_nuls));
    // Labels of objects are not padded.
    assert!(!uri("object=my-key%20").matches_object(&key()));
}

#[test]
fn every_object_attribute_counts() {
    for (matching, other) in [
        ("object=my-key", "object=My-key"),
        ("id=%01%ff", "id=%01"),
        ("type=private", "type=public"),
        (
            "object=my-key;id=%01%FF;type=private",
            "object=my-key;id=%01%FF;type=cert",
        ),
    ] {
        assert!(uri(matching).matches_object(&key()), "{matching}");
        assert!(!uri(other).matches_object(&key()), "{other}");
        assert!(!uri(matching).names_token(), "{matching}");
    }
    assert!(uri("object=x").names_object());
    assert!(uri("id=").names_object());
    assert!(!uri("type=private").names_object());
}

#[test]
fn what_is_not_said_matches_anything() {
    assert!(uri("").matches_token(&token()) && uri("").matches_object(&key()));
    assert!(!uri("").names_token() && !uri("").names_object());
    assert!(uri("object=other").matches_token(&token()));
    assert!(uri("token=other").matches_object(&key()));
}

#[test]
fn an_empty_value_means_an_empty_field() {
    assert!(!uri("token=").matches_token(&token()));
    assert!(uri("token=").matches_token(&token_but(|token| token.label.clear())));
    assert!(!uri("object=").matches_object(&key()));
    let nameless = ObjectInfo::new(ObjectType::Private, "", []);
    assert!(uri("object=;id=").matches_object(&nameless));
}

#[test]
fn an_unknown_path_attribute_matches_nothing() {
    for text in ["x-vendor=1", "token=my-token;Object=my-key", "x-vendor="] {
        let uri = uri(text);
        assert!(!uri.matches_token(&token()), "{text}");
        assert!(!uri.matches_object(&key()), "{text}");
        assert!(!uri.matches_key("my-key", &[1, 0xFF]), "{text}");
    }
}

#[test]
fn query_attributes_do_not_take_part_in_matching() {
    let uri = uri("token=my-token;object=my-key?x-vendor=1&module-name=other&pin-value=1");
    assert!(
        uri.matches_token(&token()) && uri.matches_object(&key()) && uri.matches_key("my-key", &[])
    );
}

#[test]
fn private_and_public_both_name_the_pair() {
    for text in [
        "object=my-key",
        "object=my-key;type=private",
        "object=my-key;type=public",
    ] {
        assert!(uri(text).matches_key("my-key", &[1]), "{text}");
        assert!(!uri(text).matches_key("other", &[1]), "{text}");
    }
    assert!(uri("id=%01;type=public").matches_key("", &[1]));
    assert!(!uri("id=%02;type=public").matches_key("", &[1]));
    for text in ["type=cert", "type=data", "type=secret-key"] {
        assert!(!uri(text).matches_key("my-key", &[1]), "{text}");
    }
}

#[test]
fn what_names_a_token_or_an_object_finds_it() {
    assert!(Uri::of_token(&token()).matches_token(&token()));
    assert!(Uri::of_slot(&token()).matches_token(&token()));
    let full = Uri::of_object(&token(), &key());
    assert!(full.matches_token(&token()) && full.matches_object(&key()));
    let other = token_but(|token| token.serial = "other".into());
    assert!(!full.matches_token(&other));
    let public = ObjectInfo::new(ObjectType::Public, key().label, key().id);
    assert!(!full.matches_object(&public));
}

#[test]
fn scope_takes_the_place_of_every_path_attribute() {
    let all = "library-description=L;library-manufacturer=M;library-version=1.1;slot-description=D;slot-manufacturer=S;model=O;manufacturer=F;serial=E;token=T;slot-id=1;id=%01;object=B;type=cert;x-vendor=V";
    let other = "library-description=l;library-manufacturer=m;library-version=2.2;slot-description=d;slot-manufacturer=s;model=o;manufacturer=f;serial=e;token=t;slot-id=2;id=%02;object=b;type=data;x-vendor=v";
    let names: Vec<_> = all
        .split(';')
        .filter_map(|attribute| attribute.split('=').next())
        .collect();

    let scoped = uri(other).apply_scope(&uri(all));
    assert_eq!(scoped.uri, uri(all));
    assert_eq!(scoped.replaced, names);

    // Of a request that leaves all open, and of one that says the same, nothing is replaced.
    for request in ["", all] {
        let scoped = uri(request).apply_scope(&uri(all));
        assert_eq!(scoped.uri, uri(all));
        assert_eq!(scoped.replaced, [""; 0]);
    }
    // A scope that leaves all open changes nothing.
    let scoped = uri(other).apply_scope(&uri(""));
    assert_eq!(scoped.uri, uri(other));
    assert_eq!(scoped.replaced, [""; 0]);
}

#[test]
fn scope_and_request_add_up() {
    let scoped = uri("token=mine;object=key?pin-value=1&x=y")
        .apply_scope(&uri("token=theirs;serial=s?pin-value=2&z=z"));
    assert_eq!(
        scoped.uri,
        uri("serial=s;token=theirs;object=key?pin-value=1&x=y")
    );
    assert_eq!(scoped.replaced, ["token"]);
}

#[test]
fn requests_may_not_name_files_of_the_server() {
    for (query, attribute) in [
        ("pin-source=/etc/shadow", "pin-source"),
        ("module-path=/tmp/evil.so", "module-path"),
        ("pin-value=1&module-name=evil", "module-name"),
    ] {
        let error = uri(&format!("token=a?{query}"))
            .require_request_form()
            .unwrap_err();
        let kind = ErrorKind::NotInRequest(attribute.to_owned());
        assert_eq!((error.kind(), error.position()), (&kind, None));
        assert!(error.to_string().contains(attribute));
        assert!(!error.to_string().contains("evil") && !error.to_string().contains("shadow"));
    }
    for text in ["", "token=a;object=b?pin-value=1234", "token=a?x-vendor=1"] {
        assert_eq!(uri(text).require_request_form(), Ok(()), "{text}");
    }
}

#[test]
fn pin_source_is_an_absolute_path_of_a_file() {
    for (source, path) in [
        ("file:/etc/token%20pin", "/etc/token pin"),
        ("file:///etc/pin", "/etc/pin"),
        ("/etc/pin", "/etc/pin"),
        ("%2Fetc%2fpin", "/etc/pin"),
        ("file:/run/credentials/a%2525", "/run/credentials/a%25"),
    ] {
        let uri = uri(&format!("?pin-source={source}"));
        assert_eq!(
            uri.pin_source_path().unwrap().as_deref(),
            Some(Path::new(path)),
            "{source}"
        );
    }
    assert_eq!(uri("?pin-value=1").pin_source_path(), Ok(None));
    for source in [
        "",
        "pin",
        "./pin",
        "|/bin/echo",
        "%7C/bin/echo",
        "file:",
        "file:pin",
        "file://host/etc/pin",
        "file://localhost/etc/pin",
        "//host/share",
        "http://example.org/pin",
        "data:,1234",
        "prompt",
        "env:PIN",
        "/etc/pin%00",
    ] {
        let uri = uri(&format!("?pin-source={source}"));
        assert_eq!(
            uri.pin_source_path(),
            Err(ErrorKind::PinSource.into()),
            "{source}"
        );
    }
}

fn uri(attributes: &str) -> Uri {
    Uri::parse(&format!("pkcs11:{attributes}"))
        .unwrap_or_else(|error| panic!("{attributes}: {error}"))
}

fn token() -> TokenInfo {
    let mut token = TokenInfo::default();
    token.label = "my-token".into();
    token.manufacturer = "SoftHSM project".into();
    token.serial = "83f9".into();
    token.model = "SoftHSM v2".into();
    token.slot_description = "SoftHSM slot".into();
    token.slot_manufacturer = "slot maker".into();
    token.library_manufacturer = "SoftHSM".into();
    token.library_description = "a library".into();
    token.slot_id = 7;
    token.library_version = (2, 6);
    token
}

fn token_but(change: impl FnOnce(&mut TokenInfo)) -> TokenInfo {
    let mut token = token();
    change(&mut token);
    token
}

fn key() -> ObjectInfo {
    ObjectInfo::new(ObjectType::Private, "my-key", [1, 0xFF])
}

#[test]
fn nearness_counts_what_is_equal_from_the_beginning() {
    let uri = Uri::parse("pkcs11:token=factory;serial=12;object=Key-1;id=%01%02").unwrap();
    let mut token = TokenInfo::default();
    assert_eq!(uri.nearness_to_token(&token), 0);
    token.label = "Fact".into();
    token.serial = "13".into();
    assert_eq!(uri.nearness_to_token(&token), 5);
    let object = |label: &str, id: &[u8]| ObjectInfo::new(ObjectType::Private, label, id);
    assert_eq!(uri.nearness_to_object(&object("key-2", &[1, 2])), 6);
    assert_eq!(uri.nearness_to_object(&object("other", &[2])), 0);
}

#[test]
fn a_uri_without_slot_says_the_rest() {
    let uri =
        "pkcs11:model=m;slot-id=1;slot-description=d;slot-manufacturer=s;object=o?pin-value=1";
    let uri = Uri::parse(uri).unwrap().without_slot();
    assert_eq!(uri.without_query().to_string(), "pkcs11:model=m;object=o");
}
