//! The bytes of tedge1, as released `tedge` clients and servers write them, and their legacy PEM.
//!
//! Bytes are written as in the description of the format: decimal, without the leading `00`, with
//! texts in quotes: `"1 0 1 3 'uri' 0"`.
#![cfg(test)]

use std::collections::BTreeSet;

use p11_proto::spki::PublicKey;
use p11_proto::tedge1::{
    Algorithm, ChangePin, ChooseScheme, ChosenScheme, CreateKey, CreatedKey, DeleteKey, InitToken,
    KeyEntry, KeySpec, ListKeys, Request, Response, SigScheme, Sign, SignWithSigScheme, ToSign,
    TokenEntry, advertised_protocol, legacy_pem, pong_with_advertisement,
    public_key_from_legacy_pem,
};
use p11_proto::{Error, Pin, Scheme, UriText, frame};
use serde_bytes::ByteBuf;

#[test]
fn requests() {
    for (message, bytes) in requests_and_bytes() {
        let bytes = wire(bytes);
        assert_eq!(*message.encode().unwrap(), bytes, "encoding {message:?}");
        assert_eq!(Request::decode(&bytes).unwrap(), message);
    }
}

#[test]
fn responses() {
    for (message, bytes) in responses_and_bytes() {
        let bytes = wire(bytes);
        assert_eq!(*message.encode().unwrap(), bytes, "encoding {message:?}");
        assert_eq!(Response::decode(&bytes).unwrap(), message);
    }
}

#[test]
fn no_message_is_left_out() {
    let numbers: BTreeSet<u8> = all_bytes().into_iter().map(|bytes| bytes[1]).collect();
    assert!(numbers.into_iter().eq(0..=23));
}

#[test]
fn a_message_has_the_name_of_its_request() {
    assert_eq!(Request::Ping.name(), "Ping");
    assert_eq!(sign().name(), "Sign");
    assert_eq!(Response::Sign(ByteBuf::new()).name(), "Sign");
}

#[test]
fn bytes_after_the_message_are_ignored() {
    for more in ["0", "255 255", "1 4 'more'", "'P11' 1"] {
        let more = &wire(more)[1..];
        for (message, bytes) in requests_and_bytes() {
            let bytes = [&wire(bytes), more].concat();
            assert_eq!(Request::decode(&bytes).unwrap(), message);
        }
        for (message, bytes) in responses_and_bytes() {
            let bytes = [&wire(bytes), more].concat();
            assert_eq!(Response::decode(&bytes).unwrap(), message);
        }
    }
}

#[test]
fn a_message_that_ends_early_is_malformed() {
    for (message, bytes) in requests_and_bytes() {
        let bytes = wire(bytes);
        for end in 0..bytes.len() {
            let result = Request::decode(&bytes[..end]);
            let refused = matches!(result, Err(Error::Malformed(_)));
            assert!(refused, "{end} bytes of {message:?}: {result:?}");
        }
    }
    for (message, bytes) in responses_and_bytes() {
        let bytes = wire(bytes);
        for end in 0..bytes.len() {
            let result = Response::decode(&bytes[..end]);
            let refused = matches!(result, Err(Error::Malformed(_)));
            assert!(refused, "{end} bytes of {message:?}: {result:?}");
        }
    }
    let error = Request::decode(&wire("2 4 'dat'")).unwrap_err();
    assert!(error.to_string().contains("it ends too early"), "{error}");
}

#[test]
fn another_version_is_told() {
    for first in [1, 2, b'P', 255] {
        for error in both_errors(&[first, 8]) {
            assert!(matches!(error, Error::NotTedge1), "{first}: {error:?}");
        }
    }
}

#[test]
fn a_message_of_a_newer_peer_is_told() {
    for (bytes, expected) in [
        ("24", 24),
        ("127", 127),
        ("128 1", 128),
        // 8 and a multiple of 256: not to be taken for a Ping.
        ("136 2", 264),
        ("255 255 255 255 15", u32::MAX),
    ] {
        for error in both_errors(&wire(bytes)) {
            let told = matches!(error, Error::UnknownNumber(number) if number == expected);
            assert!(told, "{bytes}: {error:?}");
        }
    }
    for bytes in [
        "255 255 255 255 16",
        "255 255 255 255 255 255 255 255 255 1",
    ] {
        for error in both_errors(&wire(bytes)) {
            assert!(matches!(error, Error::Malformed(_)), "{bytes}: {error:?}");
        }
    }
}

#[test]
fn requests_and_responses_are_not_mixed_up() {
    for (request, bytes) in requests_and_bytes() {
        let result = Response::decode(&wire(bytes));
        assert!(
            matches!(result, Err(Error::UnknownNumber(_))),
            "{request:?}"
        );
    }
    for (response, bytes) in responses_and_bytes() {
        let result = Request::decode(&wire(bytes));
        assert!(
            matches!(result, Err(Error::UnknownNumber(_))),
            "{response:?}"
        );
    }
}

#[test]
fn values_that_cannot_be_are_malformed() {
    // With one value replaced, the same bytes are a message.
    for (bytes, repaired) in [
        ("1 0 2 0", "1 0 0 0"),                     // what is optional is there or not
        ("1 1 255 255 4 0 0", "1 1 255 255 3 0 0"), // a scheme has 16 bits
        ("1 0 1 1 255 0", "1 0 1 1 'u' 0"),         // a URI is UTF-8
        ("1 0 0 1 1 255", "1 0 0 1 1 'p'"),         // and so is a PIN
        ("5 0 0 1 5 0", "5 0 0 1 4 0"),             // there are five schemes
        ("10 0 2 0 0 0 0", "10 0 1 0 0 0 0"),       // and two kinds of keys
        ("18 0 1 'n' 0 0 2", "18 0 1 'n' 0 0 1"),   // a truth is 0 or 1
    ] {
        let result = Request::decode(&wire(bytes));
        let refused = matches!(result, Err(Error::Malformed(_)));
        assert!(refused, "{bytes}: {result:?}");
        Request::decode(&wire(repaired)).unwrap();
    }
    let result = Response::decode(&wire("3 0 2"));
    assert!(matches!(result, Err(Error::Malformed(_))), "{result:?}");
    let error = Request::decode(&wire("6 1 1 255")).unwrap_err();
    assert!(error.to_string().contains("not UTF-8"), "{error}");
}

/// Were a buffer of the claimed length made, the test would panic or abort.
#[test]
fn lengths_that_are_claimed_allocate_nothing() {
    for claim in [
        // 1 << 46, 1 << 62 and the largest number of 64 bits.
        "128 128 128 128 128 128 16",
        "128 128 128 128 128 128 128 128 64",
        "255 255 255 255 255 255 255 255 255 1",
    ] {
        for before in [
            "1",            // schemes
            "1 0 1",        // URI
            "1 0 0 1",      // PIN
            "2",            // bytes to sign
            "10 0 0 0 0 1", // id
        ] {
            let result = Request::decode(&wire(&format!("{before} {claim} 'abc'")));
            assert!(
                matches!(result, Err(Error::Malformed(_))),
                "{before} {claim}: {result:?}"
            );
        }
        // A text, bytes, texts, tokens and keys.
        for before in ["0", "4", "13", "17", "23"] {
            let result = Response::decode(&wire(&format!("{before} {claim} 'abc'")));
            assert!(
                matches!(result, Err(Error::Malformed(_))),
                "{before} {claim}: {result:?}"
            );
        }
    }
}

#[test]
fn a_message_that_is_too_long_is_not_encoded() {
    // Version, number, a length of three bytes; no URI and no PIN after it.
    let request = |length| {
        Request::Sign(Sign {
            to_sign: ToSign(ByteBuf::from(vec![0; length])),
            uri: None,
            pin: None,
        })
    };
    let longest = request(frame::MAX_LEN - 7).encode().unwrap();
    assert_eq!(longest.len(), frame::MAX_LEN);
    let result = request(frame::MAX_LEN - 6).encode();
    assert!(matches!(result, Err(Error::TooLong(length)) if length == frame::MAX_LEN + 1));
}

#[test]
fn no_debug_output_shows_a_pin_or_a_message_to_sign() {
    for (message, bytes) in requests_and_bytes() {
        let text = format!("{message:?}");
        assert!(text.starts_with(message.name()), "{text}");
        // PINs and messages of the examples; the same as bytes.
        for secret in ["\"pin\"", "\"np\"", "\"op\"", "\"so\"", "data", "100, 97"] {
            assert!(!text.contains(secret), "{bytes}: {text}");
        }
    }
    assert!(format!("{:?}", sign()).contains("4 bytes"), "{:?}", sign());
    let request = Request::GetPublicKeyPem(Some("pkcs11:token=t?pin-value=271828".into()));
    assert!(!format!("{request:?}").contains("271828"), "{request:?}");
}

#[test]
fn no_error_quotes_a_pin() {
    for bytes in [
        "1 0 0 1 10 '271828182' 255", // not UTF-8
        "1 0 0 1 10 '271828182'",     // ends too early
        "1 0 '271828182'",            // in place of a URI
        "5 0 0 1 '271828182'",        // of a scheme
        "10 0 '271828182'",           // of a key
        "18 0 9 '271828182' '271828182'",
    ] {
        let error = Request::decode(&wire(bytes)).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("2718"), "{bytes}: {text}");
        assert!(!text.contains("50, 55"), "{bytes}: {text}");
    }
    let error = Request::decode(b"271828182").unwrap_err();
    assert!(!format!("{error} {error:?}").contains('2'), "{error:?}");
}

#[test]
fn schemes_have_the_numbers_that_old_peers_know() {
    let numbered = [
        (0, Scheme::EcdsaP256Sha256),
        (1, Scheme::EcdsaP384Sha384),
        (2, Scheme::EcdsaP521Sha512),
        (3, Scheme::RsaPssSha256),
        (4, Scheme::RsaPkcs1Sha256),
    ];
    for (number, scheme) in numbered {
        let request = Request::SignWithSigScheme(SignWithSigScheme {
            to_sign: to_sign(""),
            uri: None,
            sigscheme: SigScheme::from_scheme(scheme),
            pin: None,
        });
        let bytes = wire(&format!("5 0 0 1 {number} 0"));
        assert_eq!(*request.encode().unwrap(), bytes, "{scheme}");
        assert_eq!(Request::decode(&bytes).unwrap(), request);
    }
    for &scheme in Scheme::ALL {
        let known = numbered.iter().any(|(_, numbered)| *numbered == scheme);
        let back = SigScheme::from_scheme(scheme).map(Scheme::from);
        assert_eq!(back, known.then_some(scheme), "{scheme}");
    }
}

#[test]
fn algorithms_have_the_numbers_of_tls() {
    for (number, algorithm) in [
        (1, Algorithm::Rsa),
        (3, Algorithm::Ecdsa),
        (7, Algorithm::Ed25519),
    ] {
        let response = Response::ChooseScheme(ChosenScheme {
            scheme: None,
            algorithm,
        });
        let bytes = wire(&format!("3 0 {number}"));
        assert_eq!(*response.encode().unwrap(), bytes, "{algorithm:?}");
        assert_eq!(Response::decode(&bytes).unwrap(), response);
    }
}

#[test]
fn pong_advertises_protocol_1_to_those_who_look() {
    let reply = pong_with_advertisement();
    assert_eq!(reply.as_slice(), wire("9 'P11' 1"));
    assert_eq!(advertised_protocol(&reply), Some(frame::VERSION));
    assert_eq!(
        Response::decode(&reply).unwrap(),
        Response::Pong,
        "to an old client"
    );

    assert_eq!(advertised_protocol(&wire("9 'P11' 2 'and more'")), Some(2));
    for old in [
        "9",
        "9 'P11'",
        "9 'P1'",
        "9 'Q11' 1",
        "9 0 'P11' 1",
        "8 'P11' 1",
        "0 4 'P11' 1",
    ] {
        assert_eq!(advertised_protocol(&wire(old)), None, "{old}");
    }
    assert_eq!(advertised_protocol(b"P11\x01"), None);
    assert_eq!(advertised_protocol(&[]), None);
}

#[test]
fn the_legacy_pem_is_the_bare_key_as_openssl_prints_it() {
    for (spki, pem) in keys() {
        let public = PublicKey::from_spki(spki).unwrap();
        assert_eq!(legacy_pem(&public), pem);
        assert_eq!(public_key_from_legacy_pem(pem).unwrap(), public);
    }
}

#[test]
fn other_line_ends_and_a_true_spki_are_read() {
    for (spki, pem) in keys() {
        let public = PublicKey::from_spki(spki).unwrap();
        for pem in [
            pem.replace('\n', "\r\n"),
            pem.trim_end().to_owned(),
            format!("\n{pem}\n"),
        ] {
            assert_eq!(public_key_from_legacy_pem(&pem).unwrap(), public, "{pem:?}");
        }
    }
    let p256 = PublicKey::from_spki(include_bytes!("data/p256.der")).unwrap();
    let pem = include_str!("data/true-p256.pem");
    assert_eq!(public_key_from_legacy_pem(pem).unwrap(), p256);
}

#[test]
fn a_pem_of_something_else_is_refused() {
    let (_, pem) = keys()[1];
    let around =
        |body: &str| format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    for (pem, reason) in [
        (String::new(), "no PEM"),
        (pem.replace("PUBLIC", "PRIVATE"), "no PEM"),
        (pem.replace("-----END", "---END"), "no PEM"),
        (pem.replacen('B', "*", 2), "no PEM"),
        (around("BA=="), "the length of no curve"),
        (around(""), "no DER SubjectPublicKeyInfo"),
        (around("MAA="), "no DER SubjectPublicKeyInfo"),
        // Modulus and exponent are zero.
        (around("MAYCAQACAQA="), "no DER SubjectPublicKeyInfo"),
    ] {
        let Err(Error::PublicKey(message)) = public_key_from_legacy_pem(&pem) else {
            panic!("{pem}: it is no public key");
        };
        assert!(message.contains(reason), "{pem}: {message}");
    }
}

/// The examples of the description of the format, and one of every other message.
fn requests_and_bytes() -> Vec<(Request, &'static str)> {
    let pin = || Some(Pin::from("pin"));
    vec![
        (
            Request::ChooseScheme(ChooseScheme {
                offered: vec![],
                uri: None,
                pin: None,
            }),
            "1 0 0 0",
        ),
        (
            Request::ChooseScheme(ChooseScheme {
                offered: vec![0x0403],
                uri: uri("uri"),
                pin: pin(),
            }),
            "1 1 131 8 1 3 117 114 105 1 3 112 105 110",
        ),
        (
            sign(),
            "2 4 100 97 116 97 1 3 107 101 121 1 4 100 97 116 97",
        ),
        (
            Request::SignWithSigScheme(SignWithSigScheme {
                to_sign: to_sign("data"),
                uri: uri("key"),
                sigscheme: Some(SigScheme::EcdsaP256Sha256),
                pin: Some("data".into()),
            }),
            "5 4 100 97 116 97 1 3 107 101 121 1 0 1 4 100 97 116 97",
        ),
        (
            Request::SignWithSigScheme(SignWithSigScheme {
                to_sign: to_sign("data"),
                uri: None,
                sigscheme: None,
                pin: None,
            }),
            "5 4 'data' 0 0 0",
        ),
        (Request::GetPublicKeyPem(None), "6 0"),
        (Request::GetPublicKeyPem(uri("u")), "6 1 1 'u'"),
        (Request::Ping, "8"),
        (
            Request::CreateKey(CreateKey {
                uri: "asdf".into(),
                key: KeySpec::Ec { curve: 256 },
                label: "my key".into(),
                id: Some(ByteBuf::from([1, 2, 3])),
                pin: pin(),
            }),
            "10 4 97 115 100 102 1 128 2 6 109 121 32 107 101 121 1 3 1 2 3 1 3 112 105 110",
        ),
        (
            Request::CreateKey(CreateKey {
                uri: "u".into(),
                key: KeySpec::Rsa { bits: 2048 },
                label: "k".into(),
                id: None,
                pin: None,
            }),
            "10 1 'u' 0 128 16 1 'k' 0 0",
        ),
        (Request::GetTokensUris, "12"),
        (
            Request::InitToken(InitToken {
                label: "tk".into(),
                so_pin: Some("so".into()),
                pin: pin(),
                uri: uri("pkcs11:slot-id=3"),
            }),
            "14 2 116 107 1 2 115 111 1 3 112 105 110
             1 16 112 107 99 115 49 49 58 115 108 111 116 45 105 100 61 51",
        ),
        (Request::ListTokens, "16"),
        (
            Request::ChangePin(ChangePin {
                uri: uri("u"),
                new_pin: "np".into(),
                old_pin: Some("op".into()),
                so_pin: Some("so".into()),
                reset: true,
            }),
            "18 1 1 117 2 110 112 1 2 111 112 1 2 115 111 1",
        ),
        (
            Request::DeleteKey(DeleteKey {
                uri: "u".into(),
                pin: pin(),
            }),
            "20 1 'u' 1 3 'pin'",
        ),
        (
            Request::ListKeys(ListKeys {
                uri: uri("u"),
                pin: pin(),
            }),
            "22 1 1 'u' 1 3 'pin'",
        ),
        (
            Request::ListKeys(ListKeys {
                uri: None,
                pin: None,
            }),
            "22 0 0",
        ),
    ]
}

/// As [`requests_and_bytes`].
fn responses_and_bytes() -> Vec<(Response, &'static str)> {
    vec![
        (Response::Error("a".into()), "0 1 97"),
        (
            Response::ChooseScheme(ChosenScheme {
                scheme: Some(0x0804),
                algorithm: Algorithm::Rsa,
            }),
            "3 1 132 16 1",
        ),
        (
            Response::Sign(ByteBuf::from([0x30, 0x06, 0xff])),
            "4 3 48 6 255",
        ),
        (Response::GetPublicKeyPem("pem".into()), "7 3 'pem'"),
        (Response::Pong, "9"),
        (
            Response::CreateKey(CreatedKey {
                pem: "pem".into(),
                uri: "u".into(),
            }),
            "11 3 'pem' 1 'u'",
        ),
        (
            Response::GetTokensUris(vec!["a".into(), "bc".into()]),
            "13 2 1 'a' 2 'bc'",
        ),
        (Response::InitToken("u".into()), "15 1 'u'"),
        (
            Response::ListTokens(vec![TokenEntry {
                slot: 1,
                label: "tk".into(),
                model: "m".into(),
                manufacturer: "mf".into(),
                serial: "s".into(),
                initialized: true,
                uri: "u".into(),
            }]),
            "17 1 1 2 116 107 1 109 2 109 102 1 115 1 1 117",
        ),
        (
            // A slot of SoftHSM has such a number: 0x4f1c_a2b3.
            Response::ListTokens(vec![TokenEntry {
                slot: 1_327_276_723,
                label: String::new(),
                model: String::new(),
                manufacturer: String::new(),
                serial: String::new(),
                initialized: false,
                uri: String::new(),
            }]),
            "17 1 179 197 242 248 4 0 0 0 0 0 0",
        ),
        (Response::ChangePin("u".into()), "19 1 'u'"),
        (Response::DeleteKey(vec![]), "21 0"),
        (Response::DeleteKey(vec!["u".into()]), "21 1 1 'u'"),
        (
            Response::ListKeys(vec![KeyEntry {
                class: "private".into(),
                key_type: "EC".into(),
                label: "k".into(),
                id: "01ff".into(),
                uri: "u".into(),
            }]),
            "23 1 7 'private' 2 'EC' 1 'k' 4 '01ff' 1 'u'",
        ),
    ]
}

fn sign() -> Request {
    Request::Sign(Sign {
        to_sign: to_sign("data"),
        uri: uri("key"),
        pin: Some("data".into()),
    })
}

fn uri(text: &str) -> Option<UriText> {
    Some(text.into())
}

fn to_sign(text: &str) -> ToSign {
    ToSign(ByteBuf::from(text))
}

fn all_bytes() -> Vec<Vec<u8>> {
    let requests = requests_and_bytes().into_iter().map(|(_, bytes)| bytes);
    let responses = responses_and_bytes().into_iter().map(|(_, bytes)| bytes);
    requests.chain(responses).map(wire).collect()
}

/// What is wrong with bytes that are neither request nor response.
fn both_errors(bytes: &[u8]) -> [Error; 2] {
    [
        Request::decode(bytes).unwrap_err(),
        Response::decode(bytes).unwrap_err(),
    ]
}

/// Public keys as SPKI and as legacy PEM, both of OpenSSL's making (`data/make.sh`).
fn keys() -> [(&'static [u8], &'static str); 5] {
    [
        (
            include_bytes!("data/rsa.der"),
            include_str!("data/legacy-rsa.pem"),
        ),
        (
            include_bytes!("data/p256.der"),
            include_str!("data/legacy-p256.pem"),
        ),
        (
            include_bytes!("data/p384.der"),
            include_str!("data/legacy-p384.pem"),
        ),
        (
            include_bytes!("data/p521.der"),
            include_str!("data/legacy-p521.pem"),
        ),
        (
            include_bytes!("data/ed25519.der"),
            include_str!("data/legacy-ed25519.pem"),
        ),
    ]
}

/// The bytes of the notation, after the version.
fn wire(notation: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for (index, part) in notation.split('\'').enumerate() {
        match index % 2 {
            1 => bytes.extend(part.as_bytes()),
            _ => bytes.extend(part.split_whitespace().map(|n| n.parse::<u8>().unwrap())),
        }
    }
    bytes
}
