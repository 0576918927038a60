//! Who may do what, with real users: a policy goes in, what each is answered and what the log says of
//! it comes out.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use p11_client::{ErrorCode, Failure};
use p11_fault_module::Function::{C_Initialize, C_Login};
use p11_proto::{
    Request, Response,
    message::{
        GetCertificates, GetPublicKey, GetStatus, ImportCertificate, ListKeys, ListTokens, OpenKey,
        Ping,
    },
    tedge1,
};
use p11_tests::{
    client::TestClient,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    raw_client::{RawClient, ask_tedge1},
    requests::every_request,
    server::{Builder, Server},
    tools::pkcs11_module,
    wait::{TIMEOUT, wait_until},
};

use super::users::AsUser;

/// Without an account in the host's user database.
const ALICE: u32 = 4711;
const BOB: u32 = 4712;

/// A server that is held to this policy.
fn held_to(fixture: &Fixture, policy: &str) -> Server {
    let builder = fixture.server().pin(PIN);
    with_policy(builder, policy).start()
}

fn with_policy(builder: Builder, policy: &str) -> Builder {
    let file = policy_file(builder.folder());
    fs::write(&file, policy).unwrap();
    builder.args(["--policy".as_ref(), file.as_os_str()])
}

fn policy_file(folder: &Path) -> PathBuf {
    folder.join("policy.toml")
}

/// Asks on a connection of its own.
fn ask(socket: &Path, request: &Request) -> Response {
    RawClient::with_preamble(socket)
        .ask(request)
        .expect("an answer")
}

#[track_caller]
fn not_allowed(response: Response) -> Failure {
    match response {
        Response::Error(failure) if failure.code == ErrorCode::NotAllowed => failure,
        other => panic!("not refused but {other:?}"),
    }
}

fn open(uri: &str) -> Request {
    Request::OpenKey(OpenKey::new(uri))
}

/// The tokens that a user is shown.
fn tokens(socket: &Path) -> Vec<String> {
    match ask(socket, &Request::ListTokens(ListTokens::default())) {
        Response::Tokens(listing) => {
            let tokens = listing.tokens.into_iter();
            // SoftHSM has one more, for the next to come.
            let tokens = tokens.filter(|token| token.initialized);
            tokens.map(|token| token.label).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The labels of the keys that a user is shown.
fn keys(socket: &Path, uri: &str) -> Vec<String> {
    let list = ListKeys::new(uri);
    match ask(socket, &Request::ListKeys(list)) {
        Response::Objects(listing) => {
            let mut labels: Vec<_> = listing.objects.into_iter().map(|key| key.label).collect();
            labels.dedup();
            labels
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_file_every_user_may_do_everything() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.start();
    let alice = AsUser::new(&server, ALICE, ALICE);
    assert!(matches!(ask(alice.socket(), &open(KEY)), Response::Key(_)));
    for request in every_request() {
        if let Response::Error(failure) = ask(alice.socket(), &request) {
            assert_ne!(failure.code, ErrorCode::NotAllowed, "{}", failure.message);
        }
    }
}

#[test]
fn a_user_may_do_what_a_rule_allows_and_others_may_not() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = held_to(
        &fixture,
        &format!("[[rule]]\nusers = [{ALICE}]\noperations = [\"sign\"]\n"),
    );
    let [alice, bob] = [ALICE, BOB].map(|uid| AsUser::new(&server, uid, uid));
    // Through the library, and signing too.
    let key = TestClient::at(alice.socket()).open(KEY).unwrap();
    key.sign().unwrap();

    let refused = not_allowed(ask(bob.socket(), &open(KEY)));
    assert_eq!(
        refused.message,
        format!("sign is not allowed: no rule of the policy is for uid {BOB}")
    );
    let refused = not_allowed(ask(
        alice.socket(),
        &Request::ListTokens(ListTokens::default()),
    ));
    assert_eq!(
        refused.message,
        format!("list is not allowed: rule 1 of the policy does not allow it to uid {ALICE}")
    );
    // Who runs the server is no exception.
    not_allowed(ask(server.socket(), &open(KEY)));
    // What tells nothing of tokens is for all.
    for harmless in [
        Request::Ping(Ping::default()),
        Request::Status(GetStatus::default()),
    ] {
        assert!(!matches!(ask(bob.socket(), &harmless), Response::Error(_)));
    }
}

#[test]
fn a_refusal_is_logged_with_user_and_rule() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = held_to(
        &fixture,
        &format!("[[rule]]\nusers = [{ALICE}]\noperations = [\"list\"]\n"),
    );
    let alice = AsUser::new(&server, ALICE, 5000);
    not_allowed(ask(alice.socket(), &open(KEY)));
    let line = server.wait_for_log("sign is not allowed: rule 1 of the policy");
    assert!(line.contains(" WARN "), "{line}");
    let who = format!("uid={ALICE} gid=5000 pid={}", alice.pid());
    assert!(line.contains(&who), "{line}");
}

#[test]
fn what_no_rule_allows_is_refused_before_the_module_is_called() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = held_to(
        &fixture,
        &format!("[[rule]]\nusers = [{ALICE}]\noperations = [\"sign\"]\n"),
    );
    let bob = AsUser::new(&server, BOB, BOB);
    wait_until(|| fixture.faults.count(C_Initialize) == 1);
    let before = fixture.faults.counts();
    let mut refused = 0;
    for request in every_request() {
        match ask(bob.socket(), &request) {
            Response::Pong(_) | Response::Status(_) => {}
            other => {
                not_allowed(other);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 11);
    for request in [
        tedge1::Request::GetTokensUris,
        tedge1::Request::ListTokens,
        tedge1::Request::GetPublicKeyPem(Some(KEY.into())),
    ] {
        match ask_tedge1(bob.socket(), &request) {
            tedge1::Response::Error(why) => assert!(why.contains("not allowed"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.total(), 0, "{calls}");
}

#[test]
fn each_operation_has_its_name_in_the_policy() {
    let fixture = Fixture::new(KeyKind::P256);
    // Of all requests but Ping and Status, in the order of `every_request`.
    let names = [
        "sign",
        "sign",
        "list",
        "list",
        "list",
        "list",
        "import-certificate",
        "create-key",
        "delete-key",
        "init-token",
        "change-pin",
    ];
    let server = held_to(&fixture, "");
    let alice = AsUser::new(&server, ALICE, ALICE);
    for (request, name) in every_request()[2..].iter().zip(names) {
        let refused = not_allowed(ask(alice.socket(), request));
        let expected = format!("{name} is not allowed: ");
        assert!(
            refused.message.starts_with(&expected),
            "{}",
            refused.message
        );
    }
    for (request, name) in every_request()[2..].iter().zip(names) {
        let rule = format!("[[rule]]\nusers = [{ALICE}]\noperations = [\"{name}\"]\n");
        reload(&server, &rule);
        if let Response::Error(failure) = ask(alice.socket(), request) {
            assert_ne!(failure.code, ErrorCode::NotAllowed, "{name}");
        }
    }
}

/// Puts another policy in place, and waits until it holds.
fn reload(server: &Server, policy: &str) {
    fs::write(policy_file(server.folder()), policy).unwrap();
    server.sighup();
}

#[test]
fn a_rule_with_a_uri_holds_for_that_token_alone() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = held_to(
        &fixture,
        &format!(
            "[[rule]]\nusers = [{ALICE}]\noperations = [\"sign\", \"list\"]\n\
             uri = \"pkcs11:token=device\"\n"
        ),
    );
    let alice = AsUser::new(&server, ALICE, ALICE);
    assert!(matches!(ask(alice.socket(), &open(KEY)), Response::Key(_)));
    let refused = not_allowed(ask(alice.socket(), &open("pkcs11:token=second;object=key")));
    assert!(
        refused.message.contains("sign is not allowed for pkcs11:"),
        "{refused}"
    );
    assert!(refused.message.contains("token=second"), "{refused}");
    assert!(
        refused.message.contains("rule 1 of the policy"),
        "{refused}"
    );
    assert_eq!(tokens(alice.socket()), ["device"]);
    assert_eq!(keys(alice.socket(), "pkcs11:token=device"), ["key"]);
    let second = ListKeys::new("pkcs11:token=second");
    not_allowed(ask(alice.socket(), &Request::ListKeys(second)));
}

#[test]
fn an_error_does_not_name_what_a_rule_hides() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    fixture.add_key(KeyKind::P256, "secret", 2);
    let server = held_to(
        &fixture,
        &format!(
            "[[rule]]\nusers = [{ALICE}]\noperations = [\"sign\", \"list\"]\nuri = \"{KEY}\"\n\
             [[rule]]\nusers = [0]\noperations = [\"sign\", \"list\"]\n"
        ),
    );
    let alice = AsUser::new(&server, ALICE, ALICE);
    let all_keys = Request::ListKeys(ListKeys::new("pkcs11:"));
    for (request, code, hidden) in [
        (
            open("pkcs11:object=nothing"),
            ErrorCode::AmbiguousToken,
            &["second"][..],
        ),
        (
            open("pkcs11:token=nowhere"),
            ErrorCode::TokenNotFound,
            &["second"],
        ),
        (
            open("pkcs11:token=device;object=nothing"),
            ErrorCode::KeyNotFound,
            &["secret"],
        ),
        (all_keys, ErrorCode::AmbiguousToken, &["second"]),
    ] {
        let told = |socket: &Path| match ask(socket, &request) {
            Response::Error(failure) if failure.code == code => failure.message,
            other => panic!("{request:?}: {other:?}"),
        };
        let (root, alice) = (told(server.socket()), told(alice.socket()));
        for name in hidden {
            assert!(root.contains(name), "{root}");
            assert!(!alice.contains(name), "{alice}");
        }
        assert!(alice.contains("token=device"), "{alice}");
    }
}

#[test]
fn a_rule_with_an_object_holds_for_that_key_alone() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "secret", 2);
    let certificate = fixture.certificate();
    for (label, id) in [("key", 1), ("secret", 2)] {
        fixture
            .hsm
            .import_certificate(&fixture.token, label, &[id], &certificate);
    }
    let server = held_to(
        &fixture,
        &format!(
            "[[rule]]\nusers = [{ALICE}]\noperations = [\"sign\", \"list\"]\nuri = \"{KEY}\"\n"
        ),
    );
    let alice = AsUser::new(&server, ALICE, ALICE);
    assert!(matches!(ask(alice.socket(), &open(KEY)), Response::Key(_)));
    let secret = "pkcs11:token=device;object=secret";
    not_allowed(ask(alice.socket(), &open(secret)));
    let public = GetPublicKey::new(secret);
    not_allowed(ask(alice.socket(), &Request::GetPublicKey(public)));
    assert_eq!(keys(alice.socket(), "pkcs11:token=device"), ["key"]);
    let certificates = GetCertificates::new("pkcs11:token=device");
    match ask(alice.socket(), &Request::GetCertificates(certificates)) {
        Response::Certificates(shown) => {
            let [only] = &shown.certificates[..] else {
                panic!("{shown:?}");
            };
            assert!(only.uri.contains("object=key"), "{}", only.uri);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_pin_of_a_user_is_tried_on_a_token_that_no_rule_allows() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let server = held_to(
        &fixture,
        &format!(
            "[[rule]]\nusers = [{ALICE}]\nuri = \"pkcs11:token=device\"\noperations = [\"sign\", \
             \"list\", \"import-certificate\", \"create-key\", \"delete-key\", \"change-pin\"]\n"
        ),
    );
    server.secrets().add("13579135");
    let alice = AsUser::new(&server, ALICE, ALICE);
    let certificate = fixture.certificate();
    for request in every_request() {
        let Some(request) = at_second(request, &certificate) else {
            continue;
        };
        not_allowed(ask(alice.socket(), &request));
    }
    assert_eq!(fixture.faults.count(C_Login), 0);
}

/// The same request for a key that no token shows without a login on the token `second`, with a PIN.
fn at_second(request: Request, certificate: &[u8]) -> Option<Request> {
    let uri = || "pkcs11:token=second;object=hidden".into();
    let pin = || Some("13579135".into());
    Some(match request {
        Request::OpenKey(mut open) => {
            (open.uri, open.pin) = (uri(), pin());
            Request::OpenKey(open)
        }
        Request::Sign(mut sign) => {
            (sign.uri, sign.pin) = (uri(), pin());
            Request::Sign(sign)
        }
        Request::ListKeys(_) => Request::ListKeys(ListKeys::new(uri()).pin(pin())),
        Request::GetPublicKey(_) => Request::GetPublicKey(GetPublicKey::new(uri()).pin(pin())),
        Request::GetCertificates(_) => {
            Request::GetCertificates(GetCertificates::new(uri()).pin(pin()))
        }
        Request::ImportCertificate(_) => Request::ImportCertificate(
            ImportCertificate::new(uri(), certificate.to_vec()).pin(pin()),
        ),
        Request::CreateKey(mut create) => {
            (create.uri, create.pin) = (uri(), pin());
            Request::CreateKey(create)
        }
        Request::DeleteKey(mut delete) => {
            (delete.uri, delete.pin) = (uri(), pin());
            Request::DeleteKey(delete)
        }
        Request::ChangePin(mut change) => {
            (change.uri, change.old_pin) = (Some("pkcs11:token=second".into()), pin());
            Request::ChangePin(change)
        }
        _ => return None,
    })
}

#[test]
fn a_group_is_the_primary_one_of_the_process() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = held_to(
        &fixture,
        "[[rule]]\ngroups = [5001]\noperations = [\"sign\"]\n",
    );
    let member = AsUser::new(&server, ALICE, 5001);
    let other = AsUser::new(&server, ALICE, ALICE);
    assert!(matches!(ask(member.socket(), &open(KEY)), Response::Key(_)));
    not_allowed(ask(other.socket(), &open(KEY)));
}

#[test]
fn a_group_is_one_of_the_account_too_and_names_are_looked_up() {
    let fixture = Fixture::new(KeyKind::P256);
    let builder = fixture.server().pin(PIN);
    // The server sees the accounts of these files in place of the machine's.
    let [accounts, groups] = ["passwd", "group"].map(|name| builder.folder().join(name));
    fs::write(
        &accounts,
        format!("alice:x:{ALICE}:{ALICE}::/:/bin/false\nbob:x:{BOB}:{BOB}::/:/bin/false\n"),
    )
    .unwrap();
    fs::write(&groups, "iot:x:5001:alice\nown:x:4711:\n").unwrap();
    let builder = builder.envs([
        ("LD_PRELOAD", pkcs11_module("libnss_wrapper.so").as_path()),
        ("NSS_WRAPPER_PASSWD", &accounts),
        ("NSS_WRAPPER_GROUP", &groups),
    ]);
    let policy = "[[rule]]\ngroups = [\"iot\"]\noperations = [\"sign\"]\n\
                  [[rule]]\nusers = [\"bob\"]\noperations = [\"list\"]\n";
    let server = with_policy(builder, policy).start();
    let [alice, bob] = [ALICE, BOB].map(|uid| AsUser::new(&server, uid, uid));
    assert!(matches!(ask(alice.socket(), &open(KEY)), Response::Key(_)));
    let refused = not_allowed(ask(bob.socket(), &open(KEY)));
    assert!(
        refused
            .message
            .contains("rule 2 of the policy does not allow"),
        "{refused}"
    );
    assert_eq!(tokens(bob.socket()), ["device"]);
}

#[test]
fn a_file_that_is_not_understood_stops_the_start_and_the_error_says_where() {
    let rule = |rest: &str| format!("[[rule]]\nusers = [0]\noperations = [\"sign\"]\n{rest}");
    for (policy, expected) in [
        (rule("users = 1"), "line 4: duplicate key"),
        (
            rule("groups = [\"no-such-group\"]"),
            "no group \"no-such-group\"",
        ),
        (
            rule("[[rule]]\nusers = [\"no-such-user\"]\noperations = [\"list\"]"),
            "line 5, rule 2: there is no user",
        ),
        (
            rule("[[rule]]\nusers = [1]\noperations = [\"fly\"]"),
            "line 6, rule 2: there is no operation \"fly\"; there are sign, list, ",
        ),
        (
            rule("[[rule]]\nusers = [1]"),
            "line 4, rule 2: it allows nothing; give it operations",
        ),
        (
            rule("url = \"pkcs11:\""),
            "line 4, rule 1: unknown field `url`; a rule has `users`, `groups`, ",
        ),
        (
            rule("groups = \"iot\""),
            "line 4, rule 1: expected a list such as ",
        ),
        (rule("uri = \"token=a\""), "rule 1: "),
        (
            rule("uri = \"pkcs11:token=a?pin-value=13579135\""),
            "rule 1: its uri may have no query",
        ),
        (rule("[rules]"), "unknown field `rules`"),
        ("no policy at all".into(), "policy.toml cannot be used"),
    ] {
        let fixture = Fixture::new(KeyKind::P256);
        let mut server = with_policy(fixture.server().pin(PIN), &policy).spawn();
        server.secrets().add("13579135");
        let status = server.wait(TIMEOUT);
        assert_eq!(status.code(), Some(1), "{policy}");
        let log = server.log();
        let last = log.lines().last().unwrap();
        assert!(last.contains(" ERROR "), "{log}");
        assert!(
            log.contains("policy.toml") && log.contains(expected),
            "{expected}: {log}"
        );
        assert!(!server.socket().exists());
    }
}

#[test]
fn a_file_that_is_not_there_stops_the_start() {
    let fixture = Fixture::new(KeyKind::P256);
    let builder = fixture
        .server()
        .envs([("TEDGE_P11_POLICY", "/no/such/policy.toml")]);
    let mut server = builder.pin(PIN).spawn();
    assert_eq!(server.wait(TIMEOUT).code(), Some(1));
    let log = server.log();
    assert!(
        log.contains("cannot read the policy /no/such/policy.toml: No such file"),
        "{log}"
    );
}

#[test]
fn sign_only_refuses_all_that_changes_a_token_and_nothing_else() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).args(["--sign-only"]).start();
    server.client().open(KEY).unwrap().sign().unwrap();
    assert_eq!(tokens(server.socket()), ["device"]);
    let before = fixture.faults.counts();
    for request in &every_request()[8..] {
        let refused = not_allowed(ask(server.socket(), request));
        assert!(
            refused.message.contains("--sign-only"),
            "{}",
            refused.message
        );
    }
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.total(), 0, "{calls}");
}

#[test]
fn sighup_reads_the_policy_again_and_keeps_the_connections() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = held_to(&fixture, "[[rule]]\nusers = [0]\noperations = [\"list\"]\n");
    let mut kept = RawClient::with_preamble(server.socket());
    not_allowed(kept.ask(&open(KEY)).unwrap());
    reload(&server, "[[rule]]\nusers = [0]\noperations = [\"sign\"]\n");
    assert!(matches!(kept.ask(&open(KEY)), Some(Response::Key(_))));

    // A bad one is refused, and the last good one holds.
    fs::write(policy_file(server.folder()), "[[rule]]\nusers = [0]\n").unwrap();
    server.signal(Signal::SIGHUP);
    let line = server.wait_for_log("the configuration is left as it was");
    assert!(
        line.contains(" ERROR ") && line.contains("policy.toml"),
        "{line}"
    );
    assert!(matches!(kept.ask(&open(KEY)), Some(Response::Key(_))));
}
