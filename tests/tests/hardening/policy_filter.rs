//! The policy filters while a key is chosen: what a user may not use is as good as not there.

use std::fs;

use p11_client::{ErrorCode, Failure};
use p11_fault_module::{
    Function::{C_GetSlotList, C_GetTokenInfo, C_Initialize, C_Sign},
    cryptoki_sys::*,
    every_token, on,
};
use p11_proto::{Request, Response, message::ListKeys};
use p11_tests::{
    as_user::AsUser,
    client::TestClient,
    fixture::{Fixture, KEY, PIN},
    keys::KeyKind,
    pki::{Pki, Version, to_der},
    server::Server,
    wait::wait_until,
};

const ALICE: u32 = 4711;
const BOB: u32 = 4712;

/// Of the two keys of [`two_keys`] the one that is chosen second.
const SECOND: &str = "pkcs11:token=device;object=second";

/// A server on which Alice may do this with the second key alone, and Bob with both.
fn two_keys(operations: &[&str]) -> (Fixture, Server, AsUser, AsUser) {
    let fixture = Fixture::new(KeyKind::P256);
    fixture.add_key(KeyKind::P256, "second", 2);
    let rule = |uid: u32, more: &str| {
        format!("[[rule]]\nusers = [{uid}]\noperations = {operations:?}\n{more}\n")
    };
    let policy = rule(ALICE, &format!("uri = \"{SECOND}\"")) + &rule(BOB, "");
    let builder = fixture.server().pin(PIN);
    let file = builder.folder().join("policy.toml");
    fs::write(&file, policy).unwrap();
    let server = builder
        .args(["--policy".as_ref(), file.as_os_str()])
        .start();
    let [alice, bob] = [ALICE, BOB].map(|uid| AsUser::new(&server, uid, uid));
    (fixture, server, alice, bob)
}

/// The key that a user gets by a URI that means both.
fn opened(user: &TestClient) -> String {
    let key = user.open("pkcs11:token=device").unwrap();
    key.sign().unwrap();
    key.told().uri.clone()
}

#[test]
fn of_several_keys_the_first_that_this_user_may_use_is_opened() {
    for alice_first in [true, false] {
        let (_fixture, _server, alice, bob) = two_keys(&["sign"]);
        if alice_first {
            assert!(opened(&alice).contains("object=second"));
        }
        // What the one is given decides nothing for the other, from then on as well.
        for _ in 0..2 {
            assert!(opened(&bob).contains("object=key"));
            assert!(opened(&alice).contains("object=second"));
        }
    }
}

#[test]
fn of_several_public_keys_the_one_that_this_user_may_see_is_told() {
    let (_fixture, _server, alice, _bob) = two_keys(&["list"]);
    let public = alice.get_public_key("pkcs11:token=device").unwrap();
    assert!(public.uri.contains("object=second"), "{}", public.uri);
}

#[test]
fn an_issuer_that_is_hidden_is_not_shown() {
    let (fixture, _server, alice, bob) = two_keys(&["list", "import-certificate"]);
    let pki = Pki::new();
    let authority = to_der(&pki.authority());
    fixture
        .hsm
        .import_certificate(&fixture.token, "authority", &[9], &authority);
    let second = fixture.add_key(KeyKind::P256, "second", 2);
    let leaf = to_der(&pki.client("device", &second.spki, Version::V3));
    fixture
        .hsm
        .import_certificate(&fixture.token, "second", &[2], &leaf);
    assert_eq!(bob.get_certificates(SECOND).unwrap().len(), 2);
    let shown = alice.get_certificates(SECOND).unwrap();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].uri.contains("object=second"));
}

#[test]
fn of_several_keys_the_one_that_this_user_may_delete_is_deleted() {
    let (fixture, _server, alice, _bob) = two_keys(&["delete-key"]);
    // The same id, so that a URI means both and only the label tells them apart.
    fixture.add_key(KeyKind::P256, "other", 2);
    let deleted = alice.delete_key("pkcs11:token=device;id=%02").unwrap();
    assert_eq!(deleted.len(), 2, "{deleted:?}");
    assert!(deleted.iter().all(|uri| uri.contains("object=second")));
}

#[test]
fn a_key_that_lost_a_half_does_not_take_that_of_another_with_the_same_id() {
    let (fixture, server) = Fixture::started();
    fixture.add_key(KeyKind::P256, "other", 1);
    let mut tool = fixture.hsm.pkcs11_tool(&fixture.token);
    tool.args(["--delete-object", "--type", "pubkey", "--label", "key"]);
    assert!(tool.output().unwrap().status.success());
    let deleted = server.client().delete_key(KEY).unwrap();
    assert_eq!(deleted.len(), 1, "{deleted:?}");
    assert!(deleted[0].contains("object=key") && deleted[0].contains("type=private"));
    let left = server.client().list_keys("pkcs11:token=device").unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|object| object.label == "other"));
}

#[test]
fn status_names_no_token_to_who_may_not_list_it() {
    let fixture = Fixture::new(KeyKind::P256);
    let builder = fixture.server().pin(PIN);
    let builder = builder.quick();
    let file = builder.folder().join("policy.toml");
    let policy = format!(
        "[[rule]]\nusers = [{ALICE}]\noperations = [\"sign\"]\n\
         [[rule]]\nusers = [{BOB}]\noperations = [\"list\"]\n"
    );
    fs::write(&file, policy).unwrap();
    let server = builder
        .args(["--policy".as_ref(), file.as_os_str()])
        .start();
    let [alice, bob] = [ALICE, BOB].map(|uid| AsUser::new(&server, uid, uid));
    let key = alice.open(KEY).unwrap();
    fixture.faults.set([on(C_Sign).hangs()]);
    std::thread::scope(|scope| {
        scope.spawn(|| drop(key.sign()));
        wait_until(|| !bob.status().available);
        let [told, listed] = [&alice, &bob].map(|user| user.status());
        assert!(listed.trouble.unwrap().contains("token=device"));
        assert!(!told.available);
        assert_eq!(told.details, None);
        let told = told.trouble.unwrap();
        assert!(!told.contains("device") && !told.is_empty(), "{told}");
        let details = listed.details.unwrap();
        assert_eq!((details.tokens.len(), details.hung.len()), (1, 1));
        fixture.faults.clear();
    });
}

#[test]
fn status_tells_each_user_what_it_may_do() {
    let (_fixture, server, alice, bob) = two_keys(&["sign", "delete-key"]);
    let both = ["sign", "delete-key"].map(str::to_owned);
    for user in [&alice, &bob] {
        let status = user.status();
        assert_eq!(status.allowed.unwrap(), both);
        // Who may list no token is told of none, and what everybody could see.
        assert_eq!(status.details, None);
        assert_eq!(status.account.unwrap().uid, 0);
        assert!(status.version.is_some() && status.uptime.is_some());
    }
    assert_eq!(server.client().status().allowed.unwrap(), [""; 0]);
}

#[test]
fn who_may_list_one_token_alone_is_told_of_none() {
    let (_fixture, _server, alice, bob) = two_keys(&["list"]);
    assert_eq!(alice.status().details, None);
    assert!(bob.status().details.is_some());
}

#[test]
fn what_is_said_of_a_choice_counts_what_this_user_may_use() {
    let (_fixture, _server, alice, bob) = two_keys(&["sign"]);
    let uri = "pkcs11:token=device";
    let note = |user: &TestClient| user.open(uri).unwrap().told().note.clone();
    for _ in 0..2 {
        assert_eq!(note(&alice), None);
        assert!(note(&bob).unwrap().starts_with("2 keys match"));
    }
}

#[test]
fn the_refusal_of_a_user_with_no_rule_names_no_key() {
    let (_fixture, server, _alice, _bob) = two_keys(&["sign"]);
    let answer = server
        .client()
        .ask(&Request::ListKeys(ListKeys::new("pkcs11:")));
    let Response::Error(Failure { code, message, .. }) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(code, ErrorCode::NotAllowed);
    assert!(!message.contains("device"), "{message}");
}

#[test]
fn errors_tell_trouble_to_who_may_list_all_tokens_alone() {
    let (fixture, server, alice, bob) = two_keys(&["sign", "list"]);
    fixture.add_token("other");
    let [tokens] = fixture
        .hsm
        .envs()
        .map(|(_, file)| file.with_file_name("tokens"));
    let tokens = tokens.to_str().unwrap();
    let told = |user: &TestClient, uri| user.open(uri).map(drop).unwrap_err().message;
    let asks = |uri| {
        let (less, more) = (told(&alice, uri), told(&bob, uri));
        assert!(
            less.contains("there is trouble; who may list all"),
            "{less}"
        );
        for hidden in ["CKR_", " fails:", tokens] {
            assert!(!less.contains(hidden), "{hidden}: {less}");
        }
        more
    };
    // A token that she may not know of.
    let fails = on(C_GetTokenInfo).at("other").returns(CKR_DEVICE_ERROR);
    fixture.faults.set([fails]);
    for uri in ["pkcs11:token=none", "pkcs11:object=none"] {
        let more = asks(uri);
        assert!(more.contains("CKR_DEVICE_ERROR"), "{more}");
    }
    // All of them.
    fixture
        .faults
        .set([on(C_GetTokenInfo).returns(CKR_DEVICE_ERROR)]);
    let more = asks(SECOND);
    assert!(more.contains("CKR_DEVICE_ERROR"), "{more}");
    // The module.
    fixture.faults.set([
        on(C_GetSlotList).returns(CKR_CRYPTOKI_NOT_INITIALIZED),
        on(C_Initialize).returns(CKR_GENERAL_ERROR),
    ]);
    wait_until(|| !bob.status().available && told(&bob, SECOND).contains("C_Initialize"));
    let more = asks(SECOND);
    assert!(more.contains("CKR_GENERAL_ERROR"), "{more}");
    drop(server);
}

#[test]
fn where_nothing_is_initialised_a_user_is_told_of_no_folder() {
    let fixture = Fixture::new(KeyKind::P256);
    let builder = fixture.server().pin(PIN);
    let file = builder.folder().join("policy.toml");
    let rule = format!("[[rule]]\nusers = [{ALICE}]\noperations = [\"sign\"]\nuri = \"{KEY}\"\n");
    fs::write(&file, rule).unwrap();
    let server = builder
        .args(["--policy".as_ref(), file.as_os_str()])
        .start();
    let alice = AsUser::new(&server, ALICE, ALICE);
    fixture.faults.set([every_token().uninitialized()]);
    let told = alice.open(KEY).map(drop).unwrap_err();
    assert_eq!(told.code, ErrorCode::TokenNotFound);
    for hidden in ["/tokens", "account"] {
        assert!(!told.message.contains(hidden), "{told}");
    }
}
