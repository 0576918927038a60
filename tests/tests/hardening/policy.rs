//! Who may do what, with real users.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use p11_client::{ErrorCode, Failure};
use p11_fault_module::Function::{C_Initialize, C_Login};
use p11_proto::{
    Request, Response,
    message::{ListKeys, OpenKey, Ping},
    tedge1,
};
use p11_tests::{
    as_user::AsUser,
    client::{TestClient, refused},
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    pki::certificate_for,
    raw_client::{RawClient, ask_tedge1},
    requests::{every_request, requests_about},
    server::{Builder, Server},
    text::assert_contains,
    tools::pkcs11_module,
    wait::{TIMEOUT, wait_until},
};

/// Without an account in the host's user database.
const ALICE: u32 = 4711;
const BOB: u32 = 4712;

const SECOND: &str = "pkcs11:token=second;object=key";

/// A server that is held to this policy.
fn held_to(fixture: &Fixture, policy: &str) -> Server {
    with_policy(fixture.server().pin(PIN), policy).start()
}

fn with_policy(builder: Builder, policy: &str) -> Builder {
    let file = policy_file(builder.folder());
    fs::write(&file, policy).unwrap();
    builder.args(["--policy".as_ref(), file.as_os_str()])
}

fn policy_file(folder: &Path) -> PathBuf {
    folder.join("policy.toml")
}

/// Puts another policy in place, and waits until it holds.
fn reload(server: &Server, policy: &str) {
    fs::write(policy_file(server.folder()), policy).unwrap();
    server.sighup();
}

/// A rule for a user, with more lines of it.
fn rule(uid: u32, operations: &[&str], more: &str) -> String {
    format!("[[rule]]\nusers = [{uid}]\noperations = {operations:?}\n{more}\n")
}

#[track_caller]
fn not_allowed<T>(result: Result<T, Failure>) -> Failure {
    refused(result, ErrorCode::NotAllowed)
}

/// Any answer but a failure.
fn succeeds(response: Response) -> Result<Response, Failure> {
    match response {
        Response::Error(failure) => Err(failure),
        other => Ok(other),
    }
}

/// The tokens that a user is shown.
fn tokens(client: &TestClient) -> Vec<String> {
    let tokens = client.list_tokens().into_iter();
    // SoftHSM has one more, for the next to come.
    let tokens = tokens.filter(|token| token.initialized);
    tokens.map(|token| token.label).collect()
}

/// The labels of the keys on the token `device` that a user is shown.
fn keys(client: &TestClient) -> Vec<String> {
    let keys = client.list_keys("pkcs11:token=device").unwrap();
    let mut labels: Vec<_> = keys.into_iter().map(|key| key.label).collect();
    labels.dedup();
    labels
}

#[test]
fn without_a_file_every_user_may_do_everything() {
    let (_fixture, server) = Fixture::started();
    let alice = AsUser::new(&server, ALICE, ALICE);
    alice.open(KEY).unwrap();
    for request in every_request() {
        if let Response::Error(failure) = alice.ask(&request) {
            assert_ne!(failure.code, ErrorCode::NotAllowed, "{failure}");
        }
    }
}

#[test]
fn a_user_may_do_what_a_rule_allows_and_others_may_not() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = held_to(&fixture, &rule(ALICE, &["sign"], ""));
    let [alice, bob] = [ALICE, BOB].map(|uid| AsUser::new(&server, uid, uid));
    alice.open(KEY).unwrap().sign().unwrap();

    assert_eq!(
        not_allowed(bob.open(KEY)).message,
        format!("sign is not allowed: no rule of the policy is for uid {BOB}")
    );
    assert_eq!(
        not_allowed(alice.list_keys(KEY)).message,
        format!("list is not allowed: rule 1 of the policy does not allow it to uid {ALICE}")
    );
    // Who runs the server is no exception.
    not_allowed(server.client().open(KEY));
    // What tells nothing of tokens is for all.
    bob.status();
    succeeds(bob.ask(&Request::Ping(Ping::default()))).unwrap();
}

#[test]
fn a_refusal_is_logged_with_user_and_rule() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = held_to(&fixture, &rule(ALICE, &["list"], ""));
    let alice = AsUser::new(&server, ALICE, 5000);
    not_allowed(alice.open(KEY));
    let line = server.wait_for_log("sign is not allowed: rule 1 of the policy");
    assert!(line.contains(" WARN "), "{line}");
    let who = format!("uid={ALICE} gid=5000 pid={}", alice.pid());
    assert!(line.contains(&who), "{line}");
}

#[test]
fn what_no_rule_allows_is_refused_before_the_module_is_called() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = held_to(&fixture, &rule(ALICE, &["sign"], ""));
    let bob = AsUser::new(&server, BOB, BOB);
    wait_until(|| fixture.faults.count(C_Initialize) == 1);
    let before = fixture.faults.counts();
    // All but Ping and Status.
    for request in &every_request()[2..] {
        not_allowed(succeeds(bob.ask(request)));
    }
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
        "list",
        "sign",
        "sign",
        "list",
        "list",
        "list",
        "import-certificate",
        "create-key",
        "delete-key",
        "delete-certificate",
        "init-token",
        "change-pin",
    ];
    let server = held_to(&fixture, "");
    let alice = AsUser::new(&server, ALICE, ALICE);
    for (request, name) in every_request()[2..].iter().zip(names) {
        let failure = not_allowed(succeeds(alice.ask(request)));
        // Where nothing is allowed at all, a longer request is refused before it is known which it is.
        let known = format!("{name} is not allowed: ");
        let is_told =
            failure.message.starts_with(&known) || failure.message.starts_with("a request of ");
        assert!(is_told, "{failure}");
    }
    for (request, name) in every_request()[2..].iter().zip(names) {
        reload(&server, &rule(ALICE, &[name], ""));
        if let Response::Error(failure) = alice.ask(request) {
            assert_ne!(failure.code, ErrorCode::NotAllowed, "{name}");
        }
    }
}

#[test]
fn a_rule_with_a_uri_holds_for_that_token_alone() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let device = "uri = \"pkcs11:token=device\"";
    let server = held_to(&fixture, &rule(ALICE, &["sign", "list"], device));
    let alice = AsUser::new(&server, ALICE, ALICE);
    alice.open(KEY).unwrap();
    let failure = not_allowed(alice.open(SECOND));
    assert_contains(
        &failure.message,
        [
            "sign is not allowed for pkcs11:",
            "token=second",
            "rule 1 of the policy",
        ],
    );
    assert_eq!(tokens(&alice), ["device"]);
    assert_eq!(keys(&alice), ["key"]);
    not_allowed(alice.list_keys("pkcs11:token=second"));
}

#[test]
fn an_error_does_not_name_what_a_rule_hides() {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    fixture.add_key(KeyKind::P256, "secret", 2);
    let both = ["sign", "list"];
    let key = format!("uri = \"{KEY}\"");
    let policy = rule(ALICE, &both, &key) + &rule(0, &both, "");
    let server = held_to(&fixture, &policy);
    let alice = AsUser::new(&server, ALICE, ALICE);
    let open = |uri: &str| Request::OpenKey(OpenKey::new(uri));
    let nothing = open("pkcs11:object=nothing");
    // Of tokens that a URI could mean, those that the user may not use are none.
    let list = Request::ListKeys(ListKeys::new("pkcs11:"));
    for request in [&nothing, &list] {
        let told = refused(
            succeeds(server.client().ask(request)),
            ErrorCode::AmbiguousToken,
        );
        assert!(told.message.contains("second"), "{told}");
    }
    succeeds(alice.ask(&list)).unwrap();
    for (request, hidden) in [
        (nothing, "second"),
        (open("pkcs11:token=nowhere"), "second"),
        (open("pkcs11:token=device;object=nothing"), "secret"),
    ] {
        let told = |client: &TestClient| succeeds(client.ask(&request)).unwrap_err().message;
        let (root, alice) = (told(&server.client()), told(&alice));
        assert!(root.contains(hidden), "{root}");
        assert!(!alice.contains(hidden), "{alice}");
        assert!(alice.contains("token=device"), "{alice}");
    }
}

#[test]
fn a_rule_with_an_object_holds_for_that_key_alone() {
    let fixture = Fixture::new(KeyKind::P256);
    let secret = fixture.add_key(KeyKind::P256, "secret", 2);
    for (label, id, spki) in [("key", 1, &fixture.key.spki), ("secret", 2, &secret.spki)] {
        let certificate = certificate_for(spki);
        fixture
            .hsm
            .import_certificate(&fixture.token, label, &[id], &certificate);
    }
    let key = format!("uri = \"{KEY}\"");
    let server = held_to(&fixture, &rule(ALICE, &["sign", "list"], &key));
    let alice = AsUser::new(&server, ALICE, ALICE);
    alice.open(KEY).unwrap();
    let secret = "pkcs11:token=device;object=secret";
    not_allowed(alice.open(secret));
    not_allowed(alice.get_public_key(secret));
    assert_eq!(keys(&alice), ["key"]);
    let certificates = alice.get_certificates("pkcs11:token=device").unwrap();
    assert_eq!(certificates.len(), 1, "{certificates:?}");
    assert!(certificates[0].uri.contains("object=key"));
}

#[test]
fn no_pin_of_a_user_is_tried_on_a_token_that_no_rule_allows() {
    const WRONG: &str = "13579135";
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_token("second");
    let operations = [
        "sign",
        "list",
        "import-certificate",
        "create-key",
        "delete-key",
        "change-pin",
    ];
    let device = "uri = \"pkcs11:token=device\"";
    let server = held_to(&fixture, &rule(ALICE, &operations, device));
    server.secrets().add(WRONG);
    let alice = AsUser::new(&server, ALICE, ALICE);
    // A key that no token shows without a login.
    let hidden = "pkcs11:token=second;object=hidden";
    for request in requests_about(hidden, Some(WRONG.into()), &fixture.certificate()) {
        not_allowed(succeeds(alice.ask(&request)));
    }
    assert_eq!(fixture.faults.count(C_Login), 0);
}

#[test]
fn a_group_is_the_primary_one_of_the_process() {
    let fixture = Fixture::new(KeyKind::P256);
    let policy = "[[rule]]\ngroups = [5001]\noperations = [\"sign\"]\n";
    let server = held_to(&fixture, policy);
    AsUser::new(&server, ALICE, 5001).open(KEY).unwrap();
    not_allowed(AsUser::new(&server, ALICE, ALICE).open(KEY));
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
    alice.open(KEY).unwrap();
    let failure = not_allowed(bob.open(KEY));
    let reason = "rule 2 of the policy does not allow";
    assert!(failure.message.contains(reason), "{failure}");
    assert_eq!(tokens(&bob), ["device"]);
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
        assert_contains(&log, ["policy.toml", expected]);
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
    assert_contains(
        &log,
        ["cannot read the policy /no/such/policy.toml: No such file"],
    );
}

#[test]
fn sign_only_refuses_all_that_changes_a_token_and_nothing_else() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = fixture.server().pin(PIN).args(["--sign-only"]).start();
    let client = server.client();
    client.open(KEY).unwrap().sign().unwrap();
    assert_eq!(tokens(&client), ["device"]);
    let before = fixture.faults.counts();
    for request in &every_request()[8..] {
        let failure = not_allowed(succeeds(client.ask(request)));
        assert!(failure.message.contains("--sign-only"), "{failure}");
    }
    let calls = fixture.faults.counts().since(&before);
    assert_eq!(calls.total(), 0, "{calls}");
}

#[test]
fn sighup_reads_the_policy_again_and_keeps_the_connections() {
    let fixture = Fixture::new(KeyKind::P256);
    let server = held_to(&fixture, &rule(0, &["list"], ""));
    let mut kept = RawClient::with_preamble(server.socket());
    let mut open = || succeeds(kept.ask(&Request::OpenKey(OpenKey::new(KEY))).unwrap());
    not_allowed(open());
    reload(&server, &rule(0, &["sign"], ""));
    open().unwrap();

    // A bad one is refused, and the last good one holds.
    fs::write(policy_file(server.folder()), "[[rule]]\nusers = [0]\n").unwrap();
    server.signal(Signal::SIGHUP);
    let line = server.wait_for_log("the configuration is left as it was");
    assert_contains(&line, [" ERROR ", "policy.toml"]);
    open().unwrap();
}
