//! Requests cost memory only where they may: long ones of few kinds, of users with a rule, and not too many at once.

use std::{fs, io::Write, net::Shutdown, path::Path, thread, time::Duration};

use p11_client::{ErrorCode, Failure};
use p11_proto::{
    Identity, Request, Response, frame,
    message::{ImportCertificate, OpenKey, Ping, Sign},
};
use p11_tests::{
    as_user::AsUser,
    client::{P256, refused},
    fixture::{Fixture, KEY, PIN},
    keys::{KeyKind, KeySpec},
    raw_client::RawClient,
    server::Server,
    wait::wait_until,
};

const ALICE: u32 = 4711;

/// The refusal that comes while the request is still being sent; then the connection ends.
fn refused_early(raw: &mut RawClient) -> Failure {
    let answer = raw.answer();
    let Some(Response::Error(failure)) = answer else {
        panic!("{answer:?}");
    };
    failure
}

/// A frame of this request without its last byte.
fn unfinished(request: &Request) -> Vec<u8> {
    let mut bytes = frame::encode(request).unwrap().to_vec();
    bytes.pop();
    bytes
}

fn long_sign(fixture: &Fixture, length: usize) -> Request {
    let identity = Identity::of(&fixture.key.spki).unwrap();
    Request::Sign(Sign::new(KEY, 1027, vec![b'm'; length], identity))
}

#[test]
fn a_user_without_a_rule_is_refused_before_the_body_is_read() {
    let fixture = Fixture::new(KeyKind::P256);
    let builder = fixture.server().pin(PIN);
    let file = builder.folder().join("policy.toml");
    fs::write(&file, "[[rule]]\nusers = [0]\noperations = [\"sign\"]\n").unwrap();
    let server = builder
        .args(["--policy".as_ref(), file.as_os_str()])
        .start();
    let alice = AsUser::new(&server, ALICE, ALICE);
    let mut raw = RawClient::with_preamble(alice.socket());
    // The length and the name, and nothing more.
    let bytes = unfinished(&long_sign(&fixture, 1_000_000));
    raw.0.write_all(&bytes[..40]).unwrap();
    let failure = refused_early(&mut raw);
    assert_eq!(failure.code, ErrorCode::NotAllowed);
    assert!(
        failure.message.contains(&format!("uid {ALICE}")),
        "{failure}"
    );
    // What is for all is answered still.
    assert!(RawClient::with_preamble(alice.socket()).ping());
    alice.status();
}

#[test]
fn only_messages_to_sign_and_certificates_may_be_long() {
    let (_fixture, server) = Fixture::started();
    let long = "x".repeat(64 * 1024);
    let mut raw = RawClient::with_preamble(server.socket());
    let open = Request::OpenKey(OpenKey::new(format!("pkcs11:object={long}")));
    raw.0.write_all(&unfinished(&open)).unwrap();
    let failure = refused_early(&mut raw);
    assert_eq!(failure.code, ErrorCode::BadFrame);
    assert!(failure.message.contains("too long"), "{failure}");

    let key = server.client().open(KEY).unwrap();
    key.signature(key.told().schemes[0], &[b'm'; 1_000_000])
        .unwrap();
    let import = ImportCertificate::new(KEY, vec![0; 100_000]);
    let answer = server.client().ask(&Request::ImportCertificate(import));
    assert!(matches!(answer, Response::Error(failure) if failure.code == ErrorCode::BadRequest));
}

/// Connections that each lack the last byte of a long request.
fn endless(socket: &Path, count: usize, bytes: &[u8]) -> Vec<RawClient> {
    let connect = |_| {
        let mut raw = RawClient::connect(socket);
        // Those that are refused take no more.
        let _ = raw.0.write_all(bytes);
        raw
    };
    (0..count).map(connect).collect()
}

#[test]
fn long_requests_that_never_end_take_little_memory_and_no_place_of_others() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).start();
    let key = server.client().open(KEY).unwrap();
    let users = [4711, 4712, 4713, 4714].map(|uid| AsUser::new(&server, uid, uid));
    let before = resident_mib(&server);
    let bytes = [
        &frame::PREAMBLE[..],
        &unfinished(&long_sign(&fixture, 1_000_000)),
    ]
    .concat();
    let mut old = vec![0, 2, 0xc0, 0x84, 0x3d];
    old.resize(1_000_000, b'm');
    let mut held = Vec::new();
    for user in &users {
        held.extend(endless(user.socket(), 32, &bytes));
        held.extend(endless(user.socket(), 32, &old));
    }
    key.sign().unwrap();
    let more = resident_mib(&server).saturating_sub(before);
    assert!(more < 64, "{more} MiB more");
    // A user who has nothing under way may send a long one, and short ones in any case.
    key.signature(key.told().schemes[0], &[b'm'; 60_000])
        .unwrap();
    drop(held);
    wait_until(|| {
        key.signature(key.told().schemes[0], &[b'm'; 1_000_000])
            .is_ok()
    });
}

/// A client that sends this many requests, and takes no answer.
fn takes_nothing(server: &Server, requests: usize) -> RawClient {
    let ping = frame::encode(&Request::Ping(Ping::default())).unwrap();
    let mut raw = RawClient::connect(server.socket());
    let all = [&frame::PREAMBLE[..], &ping.repeat(requests)].concat();
    // Who is turned away may be gone by now.
    let _ = raw.0.write_all(&all);
    let _ = raw.0.shutdown(Shutdown::Write);
    raw
}

/// What waits in a socket counts as memory of the server for as long as the client keeps its end open.
#[test]
fn few_answers_wait_for_a_client_that_takes_none() {
    let (_fixture, server) = Fixture::started();
    let mut raw = takes_nothing(&server, 1000);
    // The server gives up after five seconds.
    thread::sleep(Duration::from_secs(8));
    let answers = std::iter::from_fn(|| raw.answer()).count();
    assert!((5..50).contains(&answers), "{answers}");
}

#[test]
fn who_leaves_answers_untaken_again_and_again_is_turned_away_and_nobody_else() {
    let (_fixture, server) = Fixture::started();
    let other = AsUser::new(&server, ALICE, ALICE);
    let held: Vec<_> = (0..900)
        .map(|_| {
            thread::sleep(Duration::from_millis(5));
            takes_nothing(&server, 15)
        })
        .collect();
    // By now there are places again.
    thread::sleep(Duration::from_secs(2));
    assert!(!RawClient::with_preamble(server.socket()).ping());
    assert!(RawClient::with_preamble(other.socket()).ping());
    let log = server.log();
    assert!(log.contains("a connection is refused: too many"), "{log}");
    drop(held);
}

fn resident_mib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() / 1024
}

#[test]
fn labels_and_ids_of_new_keys_are_short_and_one_line() {
    let (_fixture, server) = Fixture::started();
    let client = server.client();
    let create = |label: &str, id: Option<Vec<u8>>| {
        client.create_key("pkcs11:token=device", P256, label, id.as_deref())
    };
    for (label, id, field) in [
        ("x".repeat(256), None, "CreateKey.label"),
        ("x".repeat(40_000), None, "CreateKey.label"),
        ("two\nlines".into(), None, "CreateKey.label"),
        ("\u{9b}31m".into(), None, "CreateKey.label"),
        ("short".into(), Some(vec![7; 256]), "CreateKey.id"),
    ] {
        let failure = refused(create(&label, id), ErrorCode::BadRequest);
        assert!(failure.message.contains(field), "{failure}");
    }
    let longest = "x".repeat(255);
    let made = create(&longest, Some(vec![7; 255])).unwrap();
    assert!(made.uri.contains(&longest));
    server.client().open(&made.uri).unwrap().sign().unwrap();
}

#[test]
fn a_key_with_a_long_label_is_shown_with_its_beginning_and_signs_by_its_id() {
    let (fixture, server) = Fixture::started();
    for (label, id) in [("y".repeat(300), 2), ("z".repeat(3000), 3)] {
        fixture
            .hsm
            .generate(&fixture.token, &KeySpec::new(KeyKind::P256, &label, &[id]));
        let uri = format!("pkcs11:token=device;id=%{id:02x}");
        let client = server.client();
        let shown = client.list_keys(&uri).unwrap();
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert!(
            shown.iter().all(|object| object.label == label[..255]),
            "{shown:?}"
        );
        client.open(&uri).unwrap().sign().unwrap();
        assert_eq!(client.delete_key(&uri).unwrap().len(), 2);
    }
    assert_eq!(
        server
            .client()
            .list_keys("pkcs11:token=device")
            .unwrap()
            .len(),
        2
    );
}
