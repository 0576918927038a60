//! One line for each request, with all that an operator wants to know and nothing that is secret.

use p11_client::{ErrorCode, Pin};
use p11_fault_module::{
    Function::{C_DestroyObject, C_Sign, C_SignInit},
    cryptoki_sys::{CKR_ACTION_PROHIBITED, CKR_DATA_LEN_RANGE},
    on,
};
use p11_proto::{
    Request, Response,
    message::{ChangePin, InitToken, Message, OpenKey},
    tedge1,
};
use p11_tests::{
    as_user::AsUser,
    client::{ClientKey, P256, refused},
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    raw_client::{RawClient, ask_tedge1},
    requests::every_request,
    server::{Builder, Server},
    wait::wait_until,
};

const ALICE: u32 = 4711;

/// The lines of the audit so far, each after its target.
fn lines(server: &Server) -> Vec<String> {
    let log = server.log();
    let lines = log
        .lines()
        .filter_map(|line| line.split_once(" INFO audit: "));
    lines.map(|(_, line)| line.to_owned()).collect()
}

/// The next lines, as soon as there are this many.
fn wait_for_lines(server: &Server, count: usize) -> Vec<String> {
    wait_until(|| lines(server).len() >= count);
    lines(server)
}

/// A field of a line; none where it has none.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let fields = line.split(' ').filter_map(|field| field.split_once('='));
    fields
        .filter(|(its, _)| *its == name)
        .map(|(_, value)| value)
        .next()
}

fn sign(key: &ClientKey, message: &[u8]) -> Request {
    Request::Sign(key.request(key.told().schemes[0], message))
}

/// A running server, its key, and the number of lines so far.
fn with_key(builder: Builder) -> (Server, ClientKey, usize) {
    let server = builder.start();
    let key = server.client().open(KEY).unwrap();
    key.sign().unwrap();
    wait_until(|| {
        lines(&server)
            .iter()
            .any(|line| line.starts_with("operation=Sign "))
    });
    let before = lines(&server).len();
    (server, key, before)
}

#[test]
fn a_signature_is_logged_with_user_key_scheme_duration_and_outcome() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, key, before) = with_key(fixture.server().pin(PIN));
    let alice = AsUser::new(&server, ALICE, 5000);
    fixture.faults.set([on(C_Sign).delays(100)]);
    RawClient::with_preamble(alice.socket())
        .ask(&sign(&key, b"a message"))
        .unwrap();
    let line = &wait_for_lines(&server, before + 1)[before];
    assert_eq!(field(line, "operation"), Some("Sign"));
    assert_eq!(field(line, "uid"), Some("4711"));
    assert_eq!(field(line, "gid"), Some("5000"));
    assert_eq!(field(line, "pid"), Some(alice.pid().to_string().as_str()));
    assert_eq!(field(line, "uri"), Some(KEY));
    assert_eq!(
        field(line, "identity"),
        Some(key.told().identity.to_string().as_str())
    );
    assert_eq!(field(line, "scheme"), Some("ecdsa_secp256r1_sha256"));
    assert_eq!(field(line, "outcome"), Some("ok"));
    let duration: u64 = field(line, "duration_us").unwrap().parse().unwrap();
    assert!((100_000..5_000_000).contains(&duration), "{line}");
    assert_eq!(field(line, "ckr"), None);
}

#[test]
fn a_failure_of_the_module_is_logged_with_its_ckr_name() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, key, before) = with_key(fixture.server().pin(PIN));
    fixture
        .faults
        .set([on(C_SignInit).returns(CKR_DATA_LEN_RANGE)]);
    let answer = RawClient::with_preamble(server.socket()).ask(&sign(&key, b"a message"));
    assert!(matches!(answer, Some(Response::Error(failure)) if failure.code == ErrorCode::Module));
    let line = &wait_for_lines(&server, before + 1)[before];
    assert_eq!(field(line, "outcome"), Some("Module"));
    assert_eq!(field(line, "ckr"), Some("CKR_DATA_LEN_RANGE"));
    assert_eq!(field(line, "uri"), Some(KEY));
    assert_eq!(field(line, "scheme"), Some("ecdsa_secp256r1_sha256"));
}

/// The line of an operation that happened once, with these parts.
fn is_logged(server: &Server, operation: &str, parts: &[&str]) {
    let line = server.wait_for_log(&format!("operation={operation} "));
    for part in ["audit", "uid=", "gid=", "pid=", "duration_us="]
        .iter()
        .chain(parts)
    {
        assert!(line.contains(part), "no {part:?} in: {line}");
    }
}

#[test]
fn changes_are_logged_with_what_they_were_about() {
    let fixture = Fixture::new(KeyKind::P256);
    let certificate = fixture.certificate();
    let server = fixture.start();
    server.secrets().add("305419");
    let client = server.client();

    let uri = client.import_certificate(KEY, &certificate).unwrap();
    is_logged(&server, "ImportCertificate", &[&uri, "outcome=ok"]);
    let made = client.create_key("pkcs11:", P256, "made", None).unwrap();
    is_logged(&server, "CreateKey", &[&made.uri, "outcome=ok"]);
    let changed = client.change_pin(ChangePin::new("305419")).unwrap();
    is_logged(&server, "ChangePin", &[&changed.uri, "outcome=ok"]);
    let ready = client.init_token(InitToken::new("new")).unwrap();
    is_logged(&server, "InitToken", &[&ready.uri, "outcome=ok"]);

    fixture
        .faults
        .set([on(C_DestroyObject).returns(CKR_ACTION_PROHIBITED)]);
    refused(client.delete_key(KEY), ErrorCode::Module);
    let ended = "outcome=Module ckr=CKR_ACTION_PROHIBITED";
    is_logged(&server, "DeleteKey", &["object=key", ended]);
}

#[test]
fn listings_are_logged_with_what_they_were_about() {
    let (_fixture, server) = Fixture::started();
    let client = server.client();
    client.list_tokens();
    is_logged(&server, "ListTokens", &["outcome=ok"]);
    client.list_keys("pkcs11:token=device").unwrap();
    is_logged(
        &server,
        "ListKeys",
        &["uri=pkcs11:token=device ", "outcome=ok"],
    );
    let public = client.get_public_key(KEY).unwrap();
    is_logged(&server, "GetPublicKey", &[&public.uri, "outcome=ok"]);
    refused(
        client.get_certificates("pkcs11:token=none"),
        ErrorCode::TokenNotFound,
    );
    is_logged(
        &server,
        "GetCertificates",
        &["token=none", "outcome=TokenNotFound"],
    );
}

#[test]
fn each_request_has_one_line_whatever_becomes_of_it() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, _, before) = with_key(fixture.server().pin(PIN));
    let requests = every_request();
    let mut expected = Vec::new();
    let mut raw = RawClient::with_preamble(server.socket());
    for request in &requests {
        let outcome = match raw.ask(request).unwrap() {
            Response::Error(failure) => failure.code.to_string(),
            _ => "ok".into(),
        };
        expected.push((request.name(), outcome));
    }
    // One that this server does not know.
    std::io::Write::write_all(&mut raw.0, b"\0\0\0\x06\x81\xa3Fly\x80").unwrap();
    raw.answer().unwrap();
    expected.push(("unknown", "Unsupported".into()));

    let lines = wait_for_lines(&server, before + expected.len()).split_off(before);
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (operation, outcome)) in lines.iter().zip(&expected) {
        assert_eq!(field(line, "operation"), Some(*operation), "{line}");
        assert_eq!(field(line, "outcome"), Some(outcome.as_str()), "{line}");
        assert!(
            field(line, "uid").is_some() && field(line, "duration_us").is_some(),
            "{line}"
        );
    }
    // A refused request is told with the URI that it came with.
    for line in lines.iter().filter(|line| !line.contains("outcome=ok")) {
        let has_uri = line.contains(" uri=pkcs11:token=nowhere;object=nothing ");
        assert!(has_uri || line.contains("unknown"), "{line}");
    }
}

#[test]
fn requests_of_released_clients_are_logged_too() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, key, before) = with_key(fixture.server().pin(PIN));
    for request in [
        tedge1::Request::Ping,
        tedge1::Request::ListTokens,
        tedge1::Request::SignWithSigScheme(tedge1::SignWithSigScheme {
            to_sign: tedge1::ToSign(b"a message".to_vec().into()),
            uri: Some(KEY.into()),
            sigscheme: Some(tedge1::SigScheme::EcdsaP256Sha256),
            pin: Some(PIN.into()),
        }),
    ] {
        ask_tedge1(server.socket(), &request);
    }
    let lines = wait_for_lines(&server, before + 3).split_off(before);
    let operations: Vec<_> = lines
        .iter()
        .map(|line| field(line, "operation").unwrap())
        .collect();
    assert_eq!(operations, ["Ping", "ListTokens", "SignWithSigScheme"]);
    let signature = &lines[2];
    assert!(signature.contains(&key.told().uri), "{signature}");
    assert_eq!(field(signature, "scheme"), Some("ecdsa_secp256r1_sha256"));
    assert_eq!(field(signature, "outcome"), Some("ok"));
}

#[test]
fn no_pin_and_no_message_is_logged_at_any_level() {
    const MESSAGE: &str = "what-nobody-else-may-read";
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture
        .server()
        .pin(PIN)
        .args(["--log-level", "trace"])
        .start();
    let in_base64 = "d2hhdC1ub2JvZHktZWxzZS1tYXktcmVhZA";
    let in_hex = "776861742d6e6f626f64792d656c73652d6d61792d72656164";
    for secret in [MESSAGE, in_base64, in_hex, "13579135", "24682468"] {
        server.secrets().add(secret);
    }
    let key = server.client().open(KEY).unwrap();
    let before = wait_for_lines(&server, 2).len();
    let mut raw = RawClient::with_preamble(server.socket());
    let right = format!("{KEY}?pin-value={PIN}");
    let wrong = format!("{KEY}?pin-value=13579135");
    let broken = "pkcs11:token=device;token=device;pin-value=13579135";
    for uri in [right.as_str(), &wrong, broken] {
        let Request::Sign(mut request) = sign(&key, MESSAGE.as_bytes()) else {
            unreachable!();
        };
        request.uri = uri.into();
        request.pin = Some("24682468".into());
        raw.ask(&Request::Sign(request)).unwrap();
        let open = OpenKey::new(uri).pin(Pin::from("24682468"));
        raw.ask(&Request::OpenKey(open)).unwrap();
        ask_tedge1(
            server.socket(),
            &tedge1::Request::GetPublicKeyPem(Some(uri.into())),
        );
    }
    // With its last words the server is held against the secrets.
    let lines = wait_for_lines(&server, before + 9);
    assert!(
        lines.iter().any(|line| line.contains("=<REDACTED>")),
        "{lines:#?}"
    );
}

#[test]
fn a_uri_cannot_forge_a_line() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, _, before) = with_key(fixture.server().pin(PIN));
    let uri = "pkcs11:\n2025-01-01T00:00:00.000000Z  INFO audit: operation=Sign\x1b[2J\u{202e}";
    let open = OpenKey::new(uri);
    RawClient::with_preamble(server.socket())
        .ask(&Request::OpenKey(open))
        .unwrap();
    let lines = wait_for_lines(&server, before + 1).split_off(before);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let log = server.log();
    assert!(
        !log.contains('\x1b') && !log.contains('\u{202e}'),
        "{log:?}"
    );
}

#[test]
fn a_long_uri_is_cut() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, _, before) = with_key(fixture.server().pin(PIN));
    let open = OpenKey::new(format!("pkcs11:object={}", "long".repeat(10_000)));
    RawClient::with_preamble(server.socket())
        .ask(&Request::OpenKey(open))
        .unwrap();
    let line = &wait_for_lines(&server, before + 1)[before];
    assert!(line.contains(" uri=pkcs11:object=longlong"), "{line}");
    assert!(line.len() < 2000, "{} bytes", line.len());
}

#[test]
fn a_request_that_ends_after_its_client_left_is_logged() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, key, before) = with_key(fixture.server().pin(PIN));
    fixture.faults.set([on(C_Sign).delays(300)]);
    let mut raw = RawClient::with_preamble(server.socket());
    raw.send(&sign(&key, b"a message")).unwrap();
    let calls = fixture.faults.count(C_Sign);
    wait_until(|| fixture.faults.count(C_Sign) > calls - 1);
    drop(raw);
    let line = &wait_for_lines(&server, before + 1)[before];
    assert_eq!(field(line, "uri"), Some(KEY));
    assert_eq!(field(line, "outcome"), Some("ok"));
}

#[test]
fn a_request_that_ends_after_its_timeout_is_logged() {
    let fixture = Fixture::new(KeyKind::P256);
    let builder = fixture.server().pin(PIN).quick();
    let (server, key, before) = with_key(builder);
    fixture.faults.set([on(C_Sign).hangs()]);
    let mut raw = RawClient::with_preamble(server.socket());
    let answer = raw.ask(&sign(&key, b"a message"));
    assert!(matches!(answer, Some(Response::Error(failure)) if failure.code == ErrorCode::Timeout));
    assert_eq!(raw.answer(), None);
    fixture.faults.clear();
    let line = &wait_for_lines(&server, before + 1)[before];
    assert_eq!(field(line, "uri"), Some(KEY));
    let duration: u64 = field(line, "duration_us").unwrap().parse().unwrap();
    assert!(duration >= 2_000_000, "{line}");
}

#[test]
fn a_uri_with_blanks_forges_no_field() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, _, before) = with_key(fixture.server().pin(PIN));
    let open = OpenKey::new("pkcs11:token=a outcome=ok duration_us=1 \" outcome=ok");
    RawClient::with_preamble(server.socket())
        .ask(&Request::OpenKey(open))
        .unwrap();
    let line = &wait_for_lines(&server, before + 1)[before];
    let outside: String = line.replace("\\\"", "").split('"').step_by(2).collect();
    assert_eq!(outside.matches("outcome=").count(), 1, "{line}");
    assert!(outside.contains(" outcome=BadUri "), "{line}");
}

#[test]
fn refused_and_cheap_requests_in_any_number_are_summed_up_by_user_and_second() {
    let fixture = Fixture::new(KeyKind::P256);
    let (server, key, before) = with_key(fixture.server().pin(PIN));
    let mut raw = RawClient::with_preamble(server.socket());
    let broken = Request::OpenKey(OpenKey::new("no URI"));
    for _ in 0..1000 {
        assert!(raw.ping());
        raw.ask(&broken).unwrap();
    }
    // What matters has its line all the same.
    key.sign().unwrap();
    wait_until(|| {
        lines(&server)[before..]
            .iter()
            .any(|line| line.contains("operation=Sign "))
    });
    let count = |operation: &str| {
        let of_it = lines(&server).split_off(before);
        let of_it = of_it
            .iter()
            .filter(|line| field(line, "operation") == Some(operation));
        of_it
            .map(|line| field(line, "further").map_or(1, |count| count.parse().unwrap()))
            .sum::<u32>()
    };
    wait_until(|| count("Ping") >= 1000 && count("OpenKey") >= 1000);
    assert_eq!((count("Ping"), count("OpenKey")), (1000, 1000));
    let lines = lines(&server).len() - before;
    assert!(lines < 500, "{lines}");
}
